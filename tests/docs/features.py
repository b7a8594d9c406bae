#!/usr/bin/env python3
"""What the compiler, or the program, says to a user who lacks a feature: it names the feature to add.

Each case is a package of its own in a temporary directory, which depends on this checkout by its path, as a user's does. It
has the versions of the lock file here. Exit status 0 only if each case failed, and with the words that it should.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = 1800.0  # seconds for a command, which may build everything

MANIFEST = """
[package]
name = "user"
version = "0.1.0"
edition = "2024"

[dependencies]
gossipmonger = {{ path = "{root}"{ours} }}
ractor = {{ version = "0.16.5", features = [{ractors}] }}
tokio = {{ version = "1.54", features = ["macros", "rt-multi-thread", "signal", "time"] }}
"""

NOTHING = "fn main() {}\n"

# A directory as `gossipmonger join` writes it.
JOINED = """
fn main() {
    gossipmonger::pki::throwaway("certs", "demo", ["a"]).unwrap();
    std::fs::write("certs/a/gossipmonger.toml", "seeds = [\\"a:7101\\"]\\n").unwrap();
    let built = gossipmonger::Gossipmonger::builder().directory("certs/a").build();
    panic!("{}", built.unwrap_err());
}
"""

KEPT = """
fn main() {
    let _ = gossipmonger::Gossipmonger::builder().keep_store();
}
"""

PUBLISHED = """
pub fn publish(node: &gossipmonger::Gossipmonger) {
    node.publish_metrics();
}
fn main() {}
"""

# Name: cargo's command, features of ours and of ractor, the program, what is said. The first words of the whole output are those of the
# first error, if they are given.
CASES = {
    "ractor's cluster without ours": ("check", "", '"cluster"', NOTHING, [
        "ractor's feature `cluster` is on, but gossipmonger's feature `cluster` is not",
        'add it where you depend on gossipmonger: features = ["cluster"]',
    ]),
    "ractor's async-std": ("check", "", '"async-std"', NOTHING, [
        "ractor's feature `async-std` is on, and gossipmonger runs on tokio only",
        "cargo tree -e features -i ractor",
    ]),
    "a directory with a configuration file": ("run", "", '"actor-macros"', JOINED, [
        "certs/a/gossipmonger.toml", 'features = ["config-file"]',
    ]),
    "a store in the directory": ("check", "", '"actor-macros"', KEPT, [
        "`keep_store` needs gossipmonger's feature `redb`", 'features = ["redb"]',
    ]),
    "metrics of an embedded node": ("check", "", '"actor-macros"', PUBLISHED, [
        "`publish_metrics` needs gossipmonger's feature `metrics`", 'features = ["metrics"]',
    ]),
}


def said(case, target):
    """The output of cargo, which has to fail."""
    command, ours, ractors, program, _ = case
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        (place / "src").mkdir()
        (place / "src/main.rs").write_text(program)
        ours = f", features = [{ours}]" if ours else ""
        (place / "Cargo.toml").write_text(MANIFEST.format(root=ROOT, ours=ours, ractors=ractors))
        shutil.copy(ROOT / "Cargo.lock", place / "Cargo.lock")
        env = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_TERM_COLOR": "never"}
        ended = subprocess.run(
            ["cargo", command, "-q"], cwd=place, env=env, text=True, timeout=BUILD, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return None if ended.returncode == 0 else ended.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="default: all of them")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "docs"
    args = parser.parse_args()
    bad = 0
    for name in args.cases or CASES:
        output = said(CASES[name], target.resolve())
        missing = [words for words in CASES[name][-1] if output is None or words not in output]
        if output is None:
            print(f"{name}: nothing fails")
        elif missing:
            print(f"{name}: not said: {missing}\n{output[-4000:]}")
        else:
            errors = sum(line.startswith("error") for line in output.splitlines())
            first = next(line for line in output.splitlines() if line.strip())
            print(f"{name}: as it should be ({errors} errors; the first line: {first})")
        bad += bool(missing)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
