#!/usr/bin/env python3
"""Every relative link of the documentation leads to a file, and to a heading or an anchor in it."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
LINKS_MIN = 100  # fewer are found only if the pages are not read as they should be


def anchors(text):
    """The anchors of a page, as the usual renderers make them of headings."""
    found = set(re.findall(r'id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"<[^>]*>", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def main():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    wrong, number = [], 0
    for page in map(ROOT.joinpath, listed.stdout.split()):
        # Links in code are no links.
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
            if "://" in link or link.startswith("mailto:"):
                continue
            number += 1
            name, _, anchor = link.partition("#")
            to = (page.parent / name).resolve() if name else page
            if not to.exists():
                wrong.append(f"{page.relative_to(ROOT)}: {link}: there is no such file")
            elif anchor and anchor not in anchors(to.read_text()):
                wrong.append(f"{page.relative_to(ROOT)}: {link}: there is no such heading")
    print(*wrong, f"{number} links, {len(wrong)} of them wrong", sep="\n")
    return int(bool(wrong) or number < LINKS_MIN)


if __name__ == "__main__":
    sys.exit(main())
