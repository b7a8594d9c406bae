#!/usr/bin/env python3
"""Runs a page of the documentation as a newcomer types it: its files, its commands, and what these print.

In the page, the word after the language of a code block says what it is:

    ```rust file=src/lib.rs     a file of the project, whole
    ```console                  commands ("$ ...") that end, each followed by lines that it prints
    ```console again=yes        the same; the commands are repeated until they print the lines, as a reader does who waits
    ```console terminal=1       the same for a command that goes on. Further blocks of the same terminal have further
                                lines of it, or a key: "^C" or "^\\", after which it has to end; with ends=interrupted
                                by the key, as a command does that only prints. With status=5 it ends by itself, with 5

Each stated line has to be the beginning of a printed one, in the stated order; other lines may come in between.
The project depends on this checkout, by a patch, and has the versions of its lock file. With --program, `gossipmonger` is
that program. A page says how much of it is run if that is less than usual: <!-- run: command=4 terminal=3 -->
Exit status 0 only if each block was as stated, and the page has what it needs to be a check at all.
"""
import argparse
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds for a line; it usually takes a fraction
BUILD = 1800.0  # seconds for a command, which may build everything
KEYS = {"^C": signal.SIGINT, "^\\": signal.SIGQUIT}
SHOWN = ("text", "toml")  # languages of blocks that are not run
BLOCKS_MIN = {"file": 3, "command": 2, "terminal": 4}  # a page with less is not read as it should be


class Failed(Exception):
    """The page does not hold."""


def blocks(text):
    """The code blocks of a page: number of the first line, language, attributes, lines."""
    found, opened = [], None
    for number, line in enumerate(text.splitlines(), 1):
        if opened is None and line.startswith("```"):
            language, *rest = line[3:].split()
            opened = (number, language, dict(part.split("=", 1) for part in rest), [])
        elif line == "```":
            found.append(opened)
            opened = None
        elif opened is not None:
            opened[3].append(line)
    if opened is not None:
        raise Failed(f"line {opened[0]}: the block has no end")
    return found


def least(text):
    """How much of a page has to be run."""
    stated = re.search(r"<!-- run: (.*?) -->", text)
    if not stated:
        return BLOCKS_MIN
    return {kind: int(number) for kind, number in (part.split("=") for part in stated[1].split())}


def as_in_a_terminal():
    """A shell that runs something in the background has it ignore these, and so would what is run here."""
    for key in KEYS.values():
        signal.signal(key, signal.SIG_DFL)


class Terminal:
    """A command that runs in a session of its own, and what it has printed."""

    def __init__(self, command, cwd, env):
        self.command, self.printed, self.seen = command, [], 0
        self.process = subprocess.Popen(
            shlex.split(command), cwd=cwd, env=env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=as_in_a_terminal)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.printed.append(line.rstrip("\n"))

    def expect(self, line):
        """Waits for a line that begins like this, after those seen before."""
        until = time.monotonic() + PATIENCE
        while True:
            ended = not self.reader.is_alive()
            while self.seen < len(self.printed):
                self.seen += 1
                if self.printed[self.seen - 1].startswith(line):
                    return
            if ended or time.monotonic() > until:
                why = "it has ended" if ended else f"not within {PATIENCE:.0f} s"
                raise Failed(f"{self.command!r} does not print {line!r}: {why}")
            time.sleep(0.02)

    def press(self, key):
        os.killpg(self.process.pid, KEYS[key])

    def ends(self, key, interrupted):
        """Waits for its end: after Ctrl-C a good one, or that of a command that does not handle it."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.command!r} does not end after {key}") from None
        if key == "^C" and status != (-signal.SIGINT if interrupted else 0):
            raise Failed(f"{self.command!r} has ended with status {status}")

    def ended(self, wanted):
        """Waits for its end, which nobody has asked for."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.command!r} does not end") from None
        if status != wanted:
            raise Failed(f"{self.command!r} has ended with status {status}, not {wanted}")

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Page:
    """A page that is run in a directory."""

    def __init__(self, directory, target, program):
        self.cwd, self.terminals, self.done = pathlib.Path(directory), {}, dict.fromkeys(BLOCKS_MIN, 0)
        self.env = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_TERM_COLOR": "never"}
        self.built = True
        if program:
            programs = self.cwd / ".programs"
            programs.mkdir()
            (programs / "gossipmonger").symlink_to(program)
            self.env["PATH"] = f"{programs}:{self.env['PATH']}"

    def run(self, number, language, attributes, lines):
        if "file" in attributes:
            self.write(attributes["file"], lines)
        elif language == "console" and "terminal" in attributes:
            self.type(attributes["terminal"], lines, attributes.get("ends") == "interrupted")
            if "status" in attributes:
                self.terminals.pop(attributes["terminal"]).ended(int(attributes["status"]))
        elif language == "console" and "again" in attributes:
            self.again(lines)
        elif language == "console":
            self.command(lines)
        elif language in SHOWN:
            return
        else:
            raise Failed(f"line {number}: it is neither a file nor a console")

    def write(self, name, lines):
        path = self.cwd / name
        text = "\n".join(lines) + "\n"
        if name == "Cargo.toml":
            text += f'\n[patch.crates-io]\ngossipmonger = {{ path = "{ROOT}" }}\n'
            shutil.copy(ROOT / "Cargo.lock", self.cwd / "Cargo.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.done["file"], self.built = self.done["file"] + 1, False

    def command(self, lines):
        for line in lines:
            if not line.startswith("$ "):
                printed = self.expect_in(printed, line)
            elif line.startswith("$ cd "):
                self.cwd = self.cwd / line[5:]
            else:
                printed = self.shell(line[2:])
                self.done["command"] += 1

    def again(self, lines):
        until = time.monotonic() + PATIENCE
        # What is tried several times is one command.
        before = self.done["command"]
        while True:
            try:
                return self.command(lines)
            except Failed:
                self.done["command"] = before
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def shell(self, command):
        ended = subprocess.run(
            command, shell=True, cwd=self.cwd, env=self.env, text=True, timeout=BUILD, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if ended.returncode != 0:
            raise Failed(f"{command!r} fails with status {ended.returncode}:\n{ended.stdout[-6000:]}")
        return ended.stdout.splitlines()

    def expect_in(self, printed, line):
        for at, there in enumerate(printed):
            if there.startswith(line):
                return printed[at + 1:]
        raise Failed(f"{line!r} is not among {printed}")

    def type(self, name, lines, interrupted):
        self.done["terminal"] += 1
        if not self.built:
            warned = [line for line in self.shell("cargo build --bins") if line.startswith("warning")]
            if warned:
                raise Failed(f"a newcomer sees warnings: {warned}")
            self.built = True
        key = None
        for line in lines:
            if line.startswith("$ "):
                if name in self.terminals:
                    raise Failed(f"terminal {name} is in use")
                self.terminals[name] = Terminal(line[2:], self.cwd, self.env)
            elif line in KEYS:
                key = line
                self.terminals[name].press(key)
            else:
                self.terminals[name].expect(line)
        if key:
            self.terminals.pop(name).ends(key, interrupted)

    def close(self):
        for name, terminal in self.terminals.items():
            terminal.close()
            print(f"--- terminal {name}: {terminal.command}", *terminal.printed[:60], sep="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=pathlib.Path)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path(target) / "docs")
    parser.add_argument("--program", type=pathlib.Path, help="the program `gossipmonger`, for pages that use it")
    args = parser.parse_args()
    text, program = args.page.read_text(), args.program and args.program.resolve()
    with tempfile.TemporaryDirectory() as directory:
        page = Page(directory, args.target.resolve(), program)
        try:
            for number, *block in blocks(text):
                page.run(number, *block)
            if page.terminals:
                raise Failed(f"the page leaves terminals open: {sorted(page.terminals)}")
            if any(page.done[kind] < number for kind, number in least(text).items()):
                raise Failed(f"too little of the page was run: {page.done}")
        except Failed as failed:
            print(f"{args.page}, block at line {number}: {failed}", file=sys.stderr)
            return 1
        finally:
            page.close()
    print(f"{args.page}: {page.done['file']} files, {page.done['command']} commands, "
          f"{page.done['terminal']} looks at terminals, all as stated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
