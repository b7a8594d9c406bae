#!/usr/bin/env python3
"""Three datacenters of five agents on one machine: what crosses between them, cut, heal, kill -9, restart.

Every agent is a process of its own in a network namespace of its own; between datacenters there are
40 ms each way and 1 % loss. What crosses is counted at the router, in bytes of IP packets, as they
leave their datacenter: those that are lost afterwards have been paid for as well.
Needs root and the lab that gives the namespaces (--netlab).
Exit status 0 only if every step came true and every figure is within its bound.
"""
import argparse
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

DCS, HOSTS, PORT = 3, 5, 7101
PATIENCE = 120.0  # seconds a state may take to come
SETTLE = 8.0  # seconds after the last start: what joining alone needed is closed by then
IDLE = 15.0  # seconds for which nothing is written
UPDATES, UPDATE_BYTES, SPACING = 20, 100, 0.5
HEAL_BOUND = 5.0  # seconds from the heal until all have one view

# Two bridges join each two datacenters: 6 connections of about 130 B/s, both directions together. All 75
# pairs of nodes of different datacenters would take 10 kB/s.
IDLE_BOUND = 2500.0  # bytes a second
# An update this small is told on every bridge, by both of its ends if they have it at the same time: 12 times
# some 250 bytes, and roots and acknowledgements. Among all pairs 75 would tell it.
UPDATE_BOUND = 8000.0  # bytes an update


class Failed(Exception):
    pass


class Lab:
    def __init__(self, netlab, binary, heals):
        self.netlab, self.binary, self.heals = os.path.abspath(netlab), os.path.abspath(binary), heals
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

    def count(self):
        """Has the router count what each node sends to each of another datacenter, before it is lost or cut."""
        pairs = [(a, b) for a, b in itertools.permutations(self.nodes, 2) if a[:3] != b[:3]]
        rules = [f"-A PREROUTING -s {self.addresses[a]} -d {self.addresses[b]}" for a, b in pairs]
        self.core("iptables-restore", stdin="\n".join(["*raw", ":PREROUTING ACCEPT", *rules, "COMMIT", ""]))

    def core(self, *command, stdin=None):
        command = ["ip", "netns", "exec", f"{self.name}-core", *command]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def crossed(self):
        """Bytes since `count`, by (sender, receiver)."""
        names = {address: node for node, address in self.addresses.items()}
        rule = re.compile(r"^\[\d+:(\d+)\] -A PREROUTING -s ([\d.]+)/32 -d ([\d.]+)/32", re.M)
        found = rule.findall(self.core("iptables-save", "-c", "-t", "raw"))
        return {(names[a], names[b]): int(count) for count, a, b in found}

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

    def keys(self, at, node):
        done = self.run("--dir", self.dir(at), "get", node, "--json", check=False)
        return {entry["key"]: entry["value"] for entry in json.loads(done.stdout)} if done.returncode == 0 else {}

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

    def agree(self, nodes, begun):
        """Seconds since `begun` until every node has been seen to have all of them for live, and still has."""
        waits = list(nodes)
        while time.monotonic() - begun < PATIENCE:
            waits = [at for at in waits if self.see([at], nodes, "live")]
            if not waits:
                took = time.monotonic() - begun
                waits = [at for at in nodes if self.see([at], nodes, "live")]
                if not waits:
                    return took
        raise Failed(f"not one view again within {PATIENCE:.0f} s: {self.see(nodes, nodes, 'live')}")

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
        owners = {node for node, _ in values}
        for at in observers:
            found = {(node, key): value for node in owners for key, value in self.keys(at, node).items()}
            for (node, key), value in values.items():
                if found.get((node, key)) != value:
                    return f"{at} has {node}/{key} = {found.get((node, key))!r}, not {value!r}"
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
    lab.count()
    for node in nodes:
        lab.start(node)
    lab.until("all agents see each other", lambda: lab.see(nodes, nodes, "live"))

    values = {}
    for node in nodes[:: HOSTS + 1]:
        lab.set(node, "color", f"of-{node}")
        values[node, "color"] = f"of-{node}"
    lab.until("what one in each datacenter has set is read at all", lambda: lab.have(nodes, values))

    idle = traffic_at_rest(lab)
    traffic_of_updates(lab, values, idle)
    for attempt in range(lab.heals):
        cut_and_heal(lab, values, f"dc{DCS - attempt % DCS}")
    kill_and_restart(lab, values)

    for node in nodes:
        lab.agents[node].send_signal(signal.SIGTERM)
    for node in nodes:
        code = lab.agents[node].wait(timeout=PATIENCE)
        if code:
            raise Failed(f"{node} ended with {code} on SIGTERM")
    print("ok: all ended on SIGTERM with status 0", flush=True)


def traffic_at_rest(lab):
    """Bytes a second between datacenters."""
    time.sleep(SETTLE)
    spent, begun = lab.crossed(), time.monotonic()
    time.sleep(IDLE)
    took = time.monotonic() - begun
    spent = difference(spent, lab.crossed())
    rate = sum(spent.values()) / took
    pairs = ", ".join(f"{pair} {count / took:.0f}" for pair, count in by_datacenters(spent).items())
    spoke = {frozenset(pair) for pair, count in spent.items() if count}
    within("idle, bytes a second between datacenters", rate, IDLE_BOUND,
           f"{pairs}; {len(spoke)} pairs of nodes in {took:.0f} s")
    return rate


def traffic_of_updates(lab, values, idle):
    writers = lab.nodes[:: HOSTS + 1]
    spent, begun = lab.crossed(), time.monotonic()
    for update in range(UPDATES):
        writer, key = writers[update % len(writers)], f"update{update}"
        value = f"{update}".ljust(UPDATE_BYTES - len(key), "x")
        lab.set(writer, key, value)
        values[writer, key] = value
        time.sleep(max(0.0, begun + (update + 1) * SPACING - time.monotonic()))
    last = {(writer, key): values[writer, key]}
    lab.until("updates: the last one is at all", lambda: lab.have(lab.nodes, last))
    # What followed from the last one is counted as well.
    time.sleep(2.0)
    took = time.monotonic() - begun
    spent = difference(spent, lab.crossed())
    each = (sum(spent.values()) - idle * took) / UPDATES
    pairs = ", ".join(f"{pair} {count}" for pair, count in by_datacenters(spent).items())
    within(f"{UPDATES} updates of {UPDATE_BYTES} bytes, bytes between datacenters for each, less idle",
           each, UPDATE_BOUND, f"with idle in {took:.0f} s: {pairs}")
    lab.until("updates: all are at all", lambda: lab.have(lab.nodes, values))


def cut_and_heal(lab, values, datacenter):
    nodes = lab.nodes
    inside = [n for n in nodes if n.startswith(datacenter)]
    outside = [n for n in nodes if not n.startswith(datacenter)]
    lab.net("cut", datacenter)
    lab.until(f"{datacenter}, cut off, sees the rest dead", lambda: lab.see(inside, outside, "dead"))
    lab.until("the rest sees it dead", lambda: lab.see(outside, inside, "dead"))
    lab.until("each part still sees its own", lambda: lab.see(inside, inside, "live") or lab.see(outside, outside, "live"))
    here, there = inside[0], outside[0]
    for node in (here, there):
        values[node, "cut"] = f"{datacenter}-at-{node}"
        lab.set(node, "cut", values[node, "cut"])
    lab.until("each part goes on by itself", lambda: lab.have(inside, {(here, "cut"): values[here, "cut"]})
              or lab.have(outside, {(there, "cut"): values[there, "cut"]}))
    # Before the command, which takes a while: rather too much than too little.
    begun = time.monotonic()
    lab.net("heal")
    within("seconds from the heal until all have one view", lab.agree(nodes, begun), HEAL_BOUND, datacenter)
    lab.until("healed: all have what was set on either side", lambda: lab.have(nodes, {
        (node, "cut"): values[node, "cut"] for node in (here, there)}))


def kill_and_restart(lab, values):
    nodes, victim = lab.nodes, "dc2h2"
    rest = [n for n in nodes if n != victim]
    lab.agents[victim].send_signal(signal.SIGKILL)
    lab.agents[victim].wait()
    lab.until("kill -9: all see it dead", lambda: lab.see(rest, [victim], "dead"))
    lab.set("dc1h2", "meanwhile", "yes")
    values["dc1h2", "meanwhile"] = "yes"
    lab.start(victim)
    lab.until("restarted: all see it live", lambda: lab.see(nodes, nodes, "live"))
    lab.until("restarted: it has kept its keys, and has the others'", lambda: lab.have(nodes, values))


def difference(before, after):
    return {pair: after[pair] - before[pair] for pair in after}


def by_datacenters(spent):
    """Bytes by pair of datacenters, both directions together."""
    pairs = {}
    for (a, b), count in sorted(spent.items()):
        pair = "-".join(sorted((a[:3], b[:3])))
        pairs[pair] = pairs.get(pair, 0) + count
    return pairs


def within(what, figure, bound, details):
    print(f"{what}: {figure:.1f}, at most {bound:.0f} ({details})", flush=True)
    if figure > bound:
        raise Failed(f"{what}: {figure:.1f}, more than {bound:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--netlab", required=True)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--heals", type=int, default=2, help="how often a datacenter is cut off and healed (%(default)s)")
    arguments = parser.parse_args()
    lab = Lab(arguments.netlab, arguments.binary, arguments.heals)
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
