#!/usr/bin/env python3
"""Ratios of one run: the same work with less CPU, this program beside another library, large clusters beside small ones.

Each measurement is a `gossipmonger bench` in a network namespace of its own. What stands in the other library's
column is its driver with the same command line (`--peer`, a program whose last line is one JSON object); without it,
the rows that compare are skipped. Needs root and iproute2. Exit status 0 only if no ratio is above its bound.

    load.py --binary target/release/gossipmonger [--peer DRIVER] [--old BINARY] [--slack 1.2] [STEP...]
"""
import argparse
import json
import os
import subprocess
import sys

from bed import Failed

STEPS = ("join", "load", "busy", "spread", "fail", "idle", "bulk")
TIMEOUT = 900  # seconds that a measurement may take
EDGES = 6  # connections for each node: ten neighbours shared by two ends, and one to a seed

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", required=True)
parser.add_argument("--peer", help="the driver of another library")
parser.add_argument("--old", help="an earlier build of this program, for the time of a single update")
parser.add_argument("--slack", type=float, default=1.2, help="bounds are multiplied by this")
parser.add_argument("--runs", type=int, default=5, help="of bulk, and of a single update on either build")
parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))


class Ratios:
    """The rows of the table, and how many are above their bounds."""

    def __init__(self, slack):
        self.slack, self.failed = slack, 0

    def row(self, name, figure, bound, detail=""):
        """`figure`: at most `bound`; `None` if the work was not done."""
        good = figure is not None and figure <= bound * self.slack
        self.failed += not good
        shown = "void" if figure is None else f"{figure:.3g}"
        print(f"{'ok  ' if good else 'FAIL'} {name:58} {shown:>8}  at most {bound:g}  {detail}", flush=True)

    def compare(self, name, ours, theirs, bound):
        figure = None if ours is None or not theirs else ours / theirs
        self.row(name, figure, bound, f"{ours} / {theirs}")


def measure(command, *arguments):
    """Runs it where nobody else uses loopback. A measurement that fails is void: its figures are null."""
    inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']
    line = [*command, *map(str, arguments)]
    done = subprocess.run(inside + line, capture_output=True, text=True, timeout=TIMEOUT)
    lines = done.stdout.strip().splitlines()
    if not lines:
        raise Failed(f"{' '.join(line)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(lines[-1])


def figure(report, *path):
    for name in path:
        report = (report or {}).get(name)
    return report


class Run:
    def __init__(self, options):
        self.options, self.ratios = options, Ratios(options.slack)
        self.ours = [os.path.abspath(options.binary), "bench"]
        self.peer = [os.path.abspath(options.peer)] if options.peer else None
        self.old = [os.path.abspath(options.old), "bench"] if options.old else None

    def both(self, *arguments):
        return measure(self.ours, *arguments), measure(self.peer, *arguments) if self.peer else None

    def join(self):
        """A join takes the same work however little CPU there is, and it ends."""
        def join(nodes, cores):
            report = measure(self.ours, "join", "--nodes", nodes, "--seconds", 1, "--timeout", 300, "--cores", cores)
            begun = figure(report, "counters", "handshakes_begun")
            handshakes = None if begun is None else begun / (EDGES * nodes)
            name = f"join of {nodes} on {cores:g} cores"
            detail = f"{report['join_s']} s, {report['join_cpu_s']} CPU s"
            self.ratios.row(f"{name}: handshakes begun / edges", handshakes, 1.3, detail)
            return report

        two, one = join(200, 2), join(200, 1)
        self.ratios.compare("join of 200: CPU on one core / on two", one["join_cpu_s"], two["join_cpu_s"], 1.3)
        self.ratios.compare("join of 200: memory of a node, one core / two", one["rss_kib_per_node"],
                            two["rss_kib_per_node"], 1.2)
        two, fifth = join(100, 2), join(100, 0.2)
        ended = fifth["join_cpu_s"] if fifth["join_s"] is not None else None
        self.ratios.compare("join of 100: CPU on a fifth of a core / on two", ended, two["join_cpu_s"], 2.0)

    def load_of(self, nodes, rate, bytes_bound, cpu_bound, stale_bound):
        ours, peer = self.both("load", "--nodes", nodes, "--rate", rate, "--seconds", 20)
        name = f"load {nodes} x {rate}/s"
        received = figure(ours, "news_received_per_update")
        copies = None if received is None else received / (nodes - 1)
        self.ratios.row(f"{name}: copies received / needed", copies, 1.1)
        if not peer:
            print(f"skip {name}: no driver of another library")
            return
        for what, key, bound in (("bytes", "wire_bytes_per_update", bytes_bound),
                                 ("CPU", "cpu_us_per_update", cpu_bound)):
            self.ratios.compare(f"{name}: {what}, ours / theirs", ours[key], peer[key], bound)
        stale = [figure(report, "staleness_ms", "p99") for report in (ours, peer)]
        self.ratios.compare(f"{name}: p99 of the staleness, ours / theirs", *stale, stale_bound)

    def load(self):
        self.load_of(50, 100, 1.8, 2.4, 1 / 20)

    def busy(self):
        self.load_of(10, 1000, 1.8, 6, 1 / 10)

    def spread(self):
        """A single update is as fast as before, and far faster than by rounds."""
        if self.old:
            medians = {"new": [], "old": []}
            for _ in range(self.options.runs):
                for name, command in (("new", self.ours), ("old", self.old)):
                    report = measure(command, "spread", "--nodes", 50, "--reps", 30)
                    medians[name].append(figure(report, "all_ms", "p50"))
            least = {name: min(median for median in all_ if median) for name, all_ in medians.items()}
            self.ratios.compare("single update, 50 nodes: p50, new / old", least["new"], least["old"], 1.05)
        if self.peer:
            medians = [figure(report, "all_ms", "p50") for report in
                       self.both("spread", "--nodes", 200, "--reps", 30)]
            self.ratios.compare("single update, 200 nodes: p50, ours / theirs", *medians, 1 / 40)

    def fail(self):
        suspected = {}
        for nodes in (10, 50, 100, 200):
            report = measure(self.ours, "fail", "--nodes", nodes)
            for many in (1, 5):
                suspects, dead = (figure(report, f"{what}{many}", "all_s") for what in ("suspect", "fail"))
                name = f"{many} of {nodes} stopped"
                self.ratios.row(f"{name}: seconds until suspected by all", suspects, 1.0)
                self.ratios.row(f"{name}: seconds until dead for all", dead, 3.5)
            self.ratios.row(f"{nodes} nodes: false deaths", report["false_deaths_total"], 0)
            suspected[nodes] = figure(report, "suspect5", "all_s")
        self.ratios.compare("five stopped: time until suspected, 200 / 50 nodes", suspected[200], suspected[50], 1.5)

    def idle(self):
        reports = {nodes: measure(self.ours, "join", "--nodes", nodes, "--seconds", 30) for nodes in (50, 200)}
        self.ratios.compare("idle: bytes of a node, 200 / 50 nodes", reports[200]["idle_wire_bytes_per_node_s"],
                            reports[50]["idle_wire_bytes_per_node_s"], 1.1)
        if self.old:
            old = measure(self.old, "join", "--nodes", 200, "--seconds", 30)
            self.ratios.compare("idle, 200 nodes: CPU, new / old", reports[200]["idle_cpu_s_per_node_s"],
                                old["idle_cpu_s_per_node_s"], 1.0)

    def bulk(self):
        """Nothing waits for a round: no run is much slower than the fastest."""
        rates = [measure(self.ours, "bulk", "--keys", 100_000)["keys_per_s"] for _ in range(self.options.runs)]
        slowest = max(rates) / min(rates) if all(rates) else None
        self.ratios.row(f"bulk of 100,000 keys, {len(rates)} runs: fastest / slowest", slowest, 1.5, f"{rates}")
        if self.peer:
            peer = measure(self.peer, "bulk", "--keys", 100_000, "--timeout", 600)
            self.ratios.compare("bulk of 100,000 keys: their rate / ours", peer["keys_per_s"],
                                min(rates) if all(rates) else None, 1 / 300)


def main():
    options = parser.parse_args()
    unknown = [step for step in options.steps if step not in STEPS]
    if unknown:
        parser.error(f"no such step: {' '.join(unknown)}")
    run = Run(options)
    for step in options.steps or STEPS:
        getattr(run, step)()
    return 1 if run.ratios.failed else 0


if __name__ == "__main__":
    sys.exit(main())
