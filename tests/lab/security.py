#!/usr/bin/env python3
"""Security among three datacenters of three agents, 40 ms apart: how soon a revoked node is disconnected.

Every agent is a process of its own in a network namespace of its own. The script reads the agents'
reports from their own events. Needs root and the lab that gives the namespaces (--netlab). The last line is a JSON
object. Exit status 0 only if every bound was met.
"""
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import bed as beds
from bed import PATIENCE, Failed

DCS, HOSTS = 3, 3
CUT_OFF = 2.0  # seconds from the command until all nodes have disconnected the revoked node
REFUSED = 30.0  # seconds within which a revoked node that tries to come back must be refused


class Bed(beds.Bed):
    def begin(self):
        self.up("--wan-delay", "40ms")
        self.start_all()
        self.until_one_view()

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
    arguments = beds.parse(beds.parser(__doc__, EXPERIMENTS), EXPERIMENTS)
    bed = Bed(arguments, EXPERIMENTS, DCS, HOSTS)
    sys.exit(beds.run(bed))


if __name__ == "__main__":
    main()
