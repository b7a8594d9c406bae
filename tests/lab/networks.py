#!/usr/bin/env python3
"""Agents that listen on several addresses, some of which do not work: loopback before the network, and two
networks, one of which fails.

Two agents, each in a network namespace of its own, and two links between them. Needs root and iproute2.
Exit status 0 only if every step succeeded.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from bed import PATIENCE, PORT, Failed

SIDES = ("a", "b")
LINKS = (1, 2)
BLIND = 20.0  # seconds a node may take to find the remaining link: connections on the failed one time out first


def host(side, link):
    return f"10.98.{link}.{SIDES.index(side) + 1}"


class Pair:
    """Two namespaces, two links, and an agent in each namespace."""

    def __init__(self, binary):
        self.binary = os.path.abspath(binary)
        self.root = tempfile.mkdtemp(prefix="gossipmonger-networks-")
        self.names = {side: f"gm{os.getpid()}{side}" for side in SIDES}
        self.agents = {}

    def run(self, *command, check=True):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.root)
        if check and done.returncode:
            raise Failed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def up(self):
        a, b = (self.names[side] for side in SIDES)
        for side in SIDES:
            self.run("ip", "netns", "add", self.names[side])
            self.run("ip", "-n", self.names[side], "link", "set", "lo", "up")
        for link in LINKS:
            self.run("ip", "link", "add", f"x{link}", "netns", a, "type", "veth", "peer", "name", f"x{link}", "netns", b)
            for side in SIDES:
                self.run("ip", "-n", self.names[side], "addr", "add", f"{host(side, link)}/24", "dev", f"x{link}")
                self.link(side, link, "up")
        self.run(self.binary, "ca", "init", "--cluster", "lab", "--dir", "pki")
        for side in SIDES:
            self.run(self.binary, "cert", "issue", "--ca", "pki", "--node", side, "--datacenter", "eu", "--dir", side)

    def link(self, side, link, state):
        self.run("ip", "-n", self.names[side], "link", "set", f"x{link}", state)

    def start(self, side, *flags):
        command = ["ip", "netns", "exec", self.names[side], self.binary, "agent", "--dir", side, "--store", "memory",
                   "--preset", "local", *flags]
        with open(os.path.join(self.root, f"{side}.log"), "ab") as log:
            self.agents[side] = subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log)

    def stop(self):
        for agent in self.agents.values():
            agent.send_signal(signal.SIGTERM)
        for agent in self.agents.values():
            agent.wait(timeout=PATIENCE)
        self.agents = {}

    def states(self, side):
        said = self.run(self.binary, "--dir", side, "members", "--json", check=False)
        return {member["node"]: member["state"] for member in json.loads(said or "[]")}

    def until(self, what, holds, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                raise Failed(f"not within {patience:.0f} s: {what}; {({side: self.states(side) for side in SIDES})}")
            time.sleep(0.1)
        print(f"ok: {what}", flush=True)

    def see_each_other(self):
        return all(self.states(side) == {"a": "live", "b": "live"} for side in SIDES)

    def down(self, failed):
        for agent in self.agents.values():
            agent.kill()
            agent.wait()
        for name in self.names.values():
            self.run("ip", "netns", "del", name, check=False)
        if failed:
            print(f"the logs are in {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root)


def loopback_first(pair):
    """The first socket is on loopback, and cannot send to another network."""
    for side, other in (("a", "b"), ("b", "a")):
        pair.start(side, "--listen", f"127.0.0.1:{PORT}", "--listen", f"{host(side, 1)}:{PORT}",
                   "--advertise", f"{host(side, 1)}:{PORT}", "--seed", f"{host(other, 1)}:{PORT}")
    pair.until("loopback first: they see each other", pair.see_each_other)
    pair.stop()


def one_network_fails(pair):
    for side, other in (("a", "b"), ("b", "a")):
        flags = []
        for link in LINKS:
            flags += ["--listen", f"{host(side, link)}:{PORT}", "--seed", f"{host(other, link)}:{PORT}"]
        pair.start(side, *flags)
    pair.until("two networks: they see each other", pair.see_each_other)
    for down in LINKS:
        pair.link("a", down, "down")
        # They still reach each other over the other link, or soon will.
        time.sleep(5.0)
        pair.until(f"link {down} has failed: they see each other over the other one", pair.see_each_other, BLIND)
        pair.link("a", down, "up")
        time.sleep(1.0)
    pair.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    pair = Pair(parser.parse_args().binary)
    failed = True
    try:
        pair.up()
        loopback_first(pair)
        one_network_fails(pair)
        failed = False
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}", file=sys.stderr)
    finally:
        pair.down(failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
