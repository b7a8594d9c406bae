#!/usr/bin/env python3
"""Security among three datacenters of three agents, 40 ms apart: how soon a revoked node is disconnected.

Every agent is a process of its own in a network namespace of its own. The script reads the agents'
reports from their own events. Needs root and the lab that gives the namespaces (--netlab). The last line is a JSON
object. Exit status 0 only if every bound was met.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from bed import PATIENCE, Failed, Lab, Watch

DCS, HOSTS = 3, 3
CUT_OFF = 2.0  # seconds from the command until all nodes have disconnected the revoked node
REFUSED = 30.0  # seconds within which a revoked node that tries to come back must be refused


class Bed:
    """The lab, the observations in it, and the bounds."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.lab = Lab(arguments.netlab, arguments.binary, DCS, HOSTS)
        self.nodes = self.lab.nodes
        self.watch = Watch(self.lab)
        self.missed = []

    def soon(self, what, seconds, bound):
        """Checks that a step took at most `bound` seconds, times `--slack` for a slow machine."""
        bound *= self.arguments.slack
        met = seconds is not None and seconds <= bound
        shown = "never" if seconds is None else f"{seconds:.3f}"
        print(f"{'ok' if met else 'MISSED'}: seconds {what}: {shown}, at most {bound}", flush=True)
        if not met:
            self.missed.append(f"{what}: {shown} s, more than {bound}")

    def start(self, node):
        self.lab.start(node)
        self.watch.follow(node)

    def begin(self):
        for node in self.nodes:
            self.start(node)
        self.lab.until("one view", lambda: self.lab.see(self.nodes, self.nodes, "live"))

    def pki(self):
        return os.path.join(self.lab.root, "pki")

    def refusals(self, node):
        info = json.loads(self.lab.run("--dir", self.lab.dir(node), "info", "--json").stdout)
        return info["refusals"].get("revoked", 0)


def revoke(bed):
    """An agent of another datacenter revokes one node of each; then the node gets a new certificate."""
    lab, seconds, ends = bed.lab, [], []
    for victim, at in [("dc1h2", "dc3h3"), ("dc2h3", "dc1h1"), ("dc3h1", "dc2h1")]:
        others = [node for node in bed.nodes if node != victim]
        begun = time.monotonic()
        lab.run("--dir", lab.dir(at), "cert", "revoke", victim, "--ca", bed.pki())
        command = time.monotonic() - begun
        said = bed.watch.wait(others, victim, ("revoked",), begun, PATIENCE)
        worst = max(said.values()) if None not in said.values() else None
        bed.soon(f"until all nodes have disconnected {victim} (the command took {command:.3f})", worst, CUT_OFF)
        seconds.append(worst)
        try:
            code = lab.agents[victim].wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{victim} keeps running although it is revoked")
        ends.append(time.monotonic() - begun)
        if code != 5:
            bed.missed.append(f"{victim} ended with {code}, not with 5")
        known = [node for node in others if victim in lab.states(node)]
        if known:
            bed.missed.append(f"{known} still list {victim}")

        # It tries to come back with its old certificate and without its store.
        os.remove(os.path.join(lab.dir(victim), "store.redb"))
        before = {node: bed.refusals(node) for node in others}
        lab.start(victim)
        lab.until(f"{victim} is refused", lambda: None if any(
            bed.refusals(node) > before[node] for node in others) else "no node refused it", REFUSED)
        known = [node for node in others if victim in lab.states(node)]
        if known:
            bed.missed.append(f"{known} list {victim} again")
        lab.kill(victim)

        lab.run("cert", "issue", "--ca", bed.pki(), "--node", victim, "--datacenter", victim[:3],
                "--dir", lab.dir(victim), "--force")
        bed.start(victim)
        lab.until(f"{victim} is back with a new certificate", lambda: lab.see(bed.nodes, bed.nodes, "live"))
    return {"cut_off_s": [s and round(s, 3) for s in seconds], "ended_s": [round(s, 3) for s in ends]}


EXPERIMENTS = {"revoke": revoke}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument("--netlab", required=True)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--slack", type=float, default=1.0,
                        help="factor by which every time bound is multiplied (%(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="copy the agents' logs and events to DIR")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.experiments if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    sys.exit(run(Bed(arguments), arguments))


def run(bed, arguments):
    broken, reports = True, {}
    # SIGTERM takes the lab down, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bed.lab.up("--wan-delay", "40ms")
        bed.begin()
        for name in arguments.experiments or EXPERIMENTS:
            print(f"--- {name}: {EXPERIMENTS[name].__doc__}", flush=True)
            reports[name] = EXPERIMENTS[name](bed)
        broken = False
    except (Failed, subprocess.TimeoutExpired) as error:
        bed.missed.append(str(error))
        print(f"FAILED: {error}", file=sys.stderr)
    finally:
        bed.watch.close()
        if arguments.keep:
            os.makedirs(arguments.keep, exist_ok=True)
            bed.watch.write(os.path.join(arguments.keep, "events.jsonl"))
            for node in bed.nodes:
                if os.path.exists(bed.lab.log(node)):
                    shutil.copy(bed.lab.log(node), arguments.keep)
        bed.lab.down(broken)
    for missed in bed.missed:
        print(f"MISSED: {missed}", flush=True)
    print(json.dumps({"experiments": reports, "missed": bed.missed}), flush=True)
    return 1 if bed.missed else 0


if __name__ == "__main__":
    main()
