#!/usr/bin/env python3
"""Three datacenters of five agents on one machine: traffic between them, partition, heal, kill -9, restart.

Every agent is a process of its own in a network namespace of its own; between datacenters there are
40 ms each way and 1 % loss. The router counts traffic in bytes of IP packets, as they leave their
datacenter, so packets that are lost afterwards count as well.
Needs root and the lab that gives the namespaces (--netlab).
Exit status 0 only if every step succeeded and every figure is within its bound.
"""
import argparse
import itertools
import re
import signal
import subprocess
import sys
import time

from bed import PATIENCE, Failed, Lab

DCS, HOSTS = 3, 5
SETTLE = 8.0  # seconds after the last start: connections needed only for joining are closed by then
IDLE = 15.0  # seconds without writes
UPDATES, UPDATE_BYTES, SPACING = 20, 100, 0.5
HEAL_BOUND = 5.0  # seconds from the heal until all agents have the same view
CUT_BOUND = 15.0  # seconds from the partition until both sides report it: five of silence, and the time to ask 15 agents

# Two bridges connect each pair of datacenters: 6 connections of about 130 B/s, both directions together. All
# 75 pairs of nodes of different datacenters would take 10 kB/s.
IDLE_BOUND = 2500.0  # bytes a second
# An update this small is sent on every bridge, by both of its ends if they have it at the same time: 12 times
# some 250 bytes, and roots and acknowledgements. Without bridges all 75 pairs would send it.
UPDATE_BOUND = 8000.0  # bytes an update


class Datacenters(Lab):
    """The lab of this scenario. Its router counts the traffic between datacenters."""

    def count(self):
        """Makes the router count what each node sends to each node of another datacenter, before loss and cuts."""
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
        """Returns the bytes since `count`, by (sender, receiver)."""
        names = {address: node for node, address in self.addresses.items()}
        rule = re.compile(r"^\[\d+:(\d+)\] -A PREROUTING -s ([\d.]+)/32 -d ([\d.]+)/32", re.M)
        found = rule.findall(self.core("iptables-save", "-c", "-t", "raw"))
        return {(names[a], names[b]): int(count) for count, a, b in found}

    def have(self, observers, values):
        """Returns why the observers do not have every (node, key): value, or None if they do."""
        owners = {node for node, _ in values}
        for at in observers:
            found = {(node, key): value for node in owners for key, value in self.keys(at, node).items()}
            for (node, key), value in values.items():
                if found.get((node, key)) != value:
                    return f"{at} has {node}/{key} = {found.get((node, key))!r}, not {value!r}"
        return None

    def deaths(self):
        """Returns how often an agent called another dead, by the logs."""
        count = 0
        for node in self.nodes:
            with open(self.log(node), errors="replace") as lines:
                count += sum(1 for line in lines if re.search(r"WARN\b.*\bdead\b.*\bpeer=", line))
        return count

def scenario(lab, heals):
    nodes = lab.nodes
    lab.up("--wan-delay", "40ms", "--wan-loss", "1%")
    lab.count()
    for node in nodes:
        lab.start(node)
    lab.until("all agents see each other", lambda: lab.see(nodes, nodes, "live"))

    values = {}
    for node in nodes[:: HOSTS + 1]:
        lab.set(node, "color", f"of-{node}")
        values[node, "color"] = f"of-{node}"
    lab.until("all nodes read the key that one node of each datacenter has set", lambda: lab.have(nodes, values))

    idle = traffic_at_rest(lab)
    traffic_of_updates(lab, values, idle)
    for attempt in range(heals):
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
    """Returns the bytes a second between datacenters."""
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
    lab.until("updates: the last one is on all nodes", lambda: lab.have(lab.nodes, last))
    # Also count the traffic that follows the last update.
    time.sleep(2.0)
    took = time.monotonic() - begun
    spent = difference(spent, lab.crossed())
    each = (sum(spent.values()) - idle * took) / UPDATES
    pairs = ", ".join(f"{pair} {count}" for pair, count in by_datacenters(spent).items())
    within(f"{UPDATES} updates of {UPDATE_BYTES} bytes, bytes between datacenters for each, without idle traffic",
           each, UPDATE_BOUND, f"with idle in {took:.0f} s: {pairs}")
    lab.until("updates: all are on all nodes", lambda: lab.have(lab.nodes, values))


def cut_and_heal(lab, values, datacenter):
    nodes = lab.nodes
    inside = [n for n in nodes if n.startswith(datacenter)]
    outside = [n for n in nodes if not n.startswith(datacenter)]
    deaths = lab.deaths()
    begun = time.monotonic()
    lab.net("cut", datacenter)
    lab.until(f"{datacenter}, cut off, reports the rest unreachable", lambda: lab.see(inside, outside, "unreachable"))
    lab.until("the rest reports it unreachable", lambda: lab.see(outside, inside, "unreachable"))
    within("seconds from the partition until both sides report it", time.monotonic() - begun, CUT_BOUND, datacenter)
    lab.until("each part still considers its own nodes live", lambda: lab.see(inside, inside, "live") or lab.see(outside, outside, "live"))
    here, there = inside[0], outside[0]
    for node in (here, there):
        values[node, "cut"] = f"{datacenter}-at-{node}"
        lab.set(node, "cut", values[node, "cut"])
    lab.until("each part still spreads its own writes", lambda: lab.have(inside, {(here, "cut"): values[here, "cut"]})
              or lab.have(outside, {(there, "cut"): values[there, "cut"]}))
    # Taken before the command, which takes a while: the figure is rather too large than too small.
    begun = time.monotonic()
    lab.net("heal")
    within("seconds from the heal until all have the same view", lab.agree(nodes, begun), HEAL_BOUND, datacenter)
    lab.until("healed: all nodes have the writes of both sides", lambda: lab.have(nodes, {
        (node, "cut"): values[node, "cut"] for node in (here, there)}))
    if lab.deaths() != deaths:
        raise Failed(f"a node was called dead while {datacenter} was cut off: see the logs")
    print("ok: no node was called dead", flush=True)


def kill_and_restart(lab, values):
    nodes, victim = lab.nodes, "dc2h2"
    rest = [n for n in nodes if n != victim]
    deaths = lab.deaths()
    lab.agents[victim].send_signal(signal.SIGKILL)
    lab.agents[victim].wait()
    lab.until("kill -9: all see it dead", lambda: lab.see(rest, [victim], "dead"))
    lab.until("kill -9: all have logged the death", lambda: None if lab.deaths() - deaths >= len(rest) else "some logs do not show it")
    lab.set("dc1h2", "meanwhile", "yes")
    values["dc1h2", "meanwhile"] = "yes"
    lab.start(victim)
    lab.until("restarted: all see it live", lambda: lab.see(nodes, nodes, "live"))
    lab.until("restarted: it has kept its keys, and has those of the others", lambda: lab.have(nodes, values))


def difference(before, after):
    return {pair: after[pair] - before[pair] for pair in after}


def by_datacenters(spent):
    """Returns the bytes by pair of datacenters, both directions together."""
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
    lab = Datacenters(arguments.netlab, arguments.binary, DCS, HOSTS)
    failed = True
    try:
        scenario(lab, arguments.heals)
        failed = False
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}", file=sys.stderr)
    finally:
        lab.down(failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
