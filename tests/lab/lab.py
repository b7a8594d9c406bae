#!/usr/bin/env python3
"""Three datacenters of three agents on one machine: join, cut, heal, kill -9, restart.

Every agent is a process of its own in a network namespace of its own; between datacenters there are
40 ms each way and 1 % loss. Needs root and the lab that gives the namespaces (--netlab).
Exit status 0 only if every step came true.
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

DCS, HOSTS, PORT = 3, 3, 7101
PATIENCE = 60.0  # seconds a state may take to come


class Failed(Exception):
    pass


class Lab:
    def __init__(self, netlab, binary):
        self.netlab, self.binary = os.path.abspath(netlab), os.path.abspath(binary)
        self.name = f"gm{os.getpid()}"
        self.root = tempfile.mkdtemp(prefix="gossipmonger-lab-")
        self.nodes = [f"dc{d}h{h}" for d in range(1, DCS + 1) for h in range(1, HOSTS + 1)]
        self.agents = {}

    def net(self, *args):
        command = [sys.executable, self.netlab, "--lab", self.name, *args]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(args)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def run(self, *args, check=True):
        done = subprocess.run([self.binary, *args], capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise Failed(f"gossipmonger {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
        return done

    def dir(self, node):
        return os.path.join(self.root, node)

    def up(self):
        self.net("up", "--dcs", str(DCS), "--hosts", str(HOSTS), "--wan-delay", "40ms",
                 "--wan-loss", "1%")
        pki = os.path.join(self.root, "pki")
        self.run("ca", "init", "--cluster", "lab", "--dir", pki)
        for node in self.nodes:
            self.run("cert", "issue", "--ca", pki, "--node", node, "--datacenter", node[:3],
                     "--dir", self.dir(node))
        self.addresses = {node: self.net("addr", node) for node in self.nodes}

    def start(self, node):
        seeds = [self.addresses[s] for s in ("dc1h1", "dc2h1", "dc3h1") if s != node]
        command = [sys.executable, self.netlab, "--lab", self.name, "exec", node, "--", self.binary,
                   "agent", "--dir", self.dir(node), "--listen", f"0.0.0.0:{PORT}",
                   "--advertise", f"{self.addresses[node]}:{PORT}"]
        for seed in seeds:
            command += ["--seed", f"{seed}:{PORT}"]
        log = open(os.path.join(self.root, f"{node}.log"), "ab")
        self.agents[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def states(self, node):
        done = self.run("--dir", self.dir(node), "members", "--json", check=False)
        if done.returncode:
            return {}
        return {m["node"]: m["state"] for m in json.loads(done.stdout)}

    def get(self, at, node, key):
        done = self.run("--dir", self.dir(at), "get", node, key, check=False)
        return done.stdout.rstrip("\n") if done.returncode == 0 else None

    def set(self, node, key, value):
        self.run("--dir", self.dir(node), "set", key, value)

    def until(self, what, holds):
        begun = time.monotonic()
        missing = None
        while time.monotonic() - begun < PATIENCE:
            missing = holds()
            if not missing:
                print(f"ok: {what} ({time.monotonic() - begun:.1f} s)", flush=True)
                return
            time.sleep(0.2)
        raise Failed(f"not within {PATIENCE:.0f} s: {what}: {missing}")

    def see(self, observers, targets, state):
        """What keeps the observers from seeing every target in a state, if anything does."""
        for at in observers:
            states = self.states(at)
            wrong = {t: states.get(t) for t in targets if states.get(t) != state}
            if wrong:
                return f"{at} sees {wrong}"
        return None

    def have(self, observers, values):
        """What keeps the observers from having every (node, key): value, if anything does."""
        for at in observers:
            for (node, key), value in values.items():
                found = self.get(at, node, key)
                if found != value:
                    return f"{at} has {node}/{key} = {found!r}, not {value!r}"
        return None

    def down(self, failed):
        for agent in self.agents.values():
            if agent.poll() is None:
                agent.kill()
                agent.wait()
        if failed:
            for node in self.nodes:
                log = os.path.join(self.root, f"{node}.log")
                if os.path.exists(log):
                    with open(log, errors="replace") as lines:
                        print(f"--- {node}\n" + "".join(lines.readlines()[-15:]), file=sys.stderr)
        try:
            self.net("down")
        finally:
            shutil.rmtree(self.root, ignore_errors=True)


def scenario(lab):
    nodes = lab.nodes
    lab.up()
    for node in nodes:
        lab.start(node)
    lab.until("nine agents see each other", lambda: lab.see(nodes, nodes, "live"))

    values = {}
    for node in nodes:
        lab.set(node, "color", f"of-{node}")
        values[node, "color"] = f"of-{node}"
    lab.until("what each has set is read at all", lambda: lab.have(nodes, values))

    inside, outside = [n for n in nodes if n.startswith("dc3")], [n for n in nodes if not n.startswith("dc3")]
    lab.net("cut", "dc3")
    lab.until("the datacenter that is cut off sees the rest dead", lambda: lab.see(inside, outside, "dead"))
    lab.until("the rest sees it dead", lambda: lab.see(outside, inside, "dead"))
    lab.until("each part still sees its own", lambda: lab.see(inside, inside, "live") or lab.see(outside, outside, "live"))
    for node in ("dc1h1", "dc3h1"):
        lab.set(node, "cut", f"at-{node}")
        values[node, "cut"] = f"at-{node}"
    lab.until("each part goes on by itself", lambda: lab.have(inside, {("dc3h1", "cut"): "at-dc3h1"})
              or lab.have(outside, {("dc1h1", "cut"): "at-dc1h1"}))
    lab.net("heal")
    lab.until("healed: one view again", lambda: lab.see(nodes, nodes, "live"))
    lab.until("healed: all have what was set on either side", lambda: lab.have(nodes, values))

    victim = "dc2h2"
    rest = [n for n in nodes if n != victim]
    lab.agents[victim].send_signal(signal.SIGKILL)
    lab.agents[victim].wait()
    lab.until("kill -9: all see it dead", lambda: lab.see(rest, [victim], "dead"))
    lab.set("dc1h2", "meanwhile", "yes")
    values["dc1h2", "meanwhile"] = "yes"
    lab.start(victim)
    lab.until("restarted: all see it live", lambda: lab.see(nodes, nodes, "live"))
    lab.until("restarted: it has kept its keys, and has the others'", lambda: lab.have(nodes, values))

    for node in nodes:
        lab.agents[node].send_signal(signal.SIGTERM)
    for node in nodes:
        code = lab.agents[node].wait(timeout=PATIENCE)
        if code:
            raise Failed(f"{node} ended with {code} on SIGTERM")
    print("ok: all ended on SIGTERM with status 0", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--netlab", required=True)
    parser.add_argument("--binary", required=True)
    arguments = parser.parse_args()
    lab = Lab(arguments.netlab, arguments.binary)
    failed = True
    try:
        scenario(lab)
        failed = False
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}", file=sys.stderr)
    finally:
        lab.down(failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
