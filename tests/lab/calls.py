#!/usr/bin/env python3
"""Calls among three datacenters of three hosts, 40 ms apart (there and back).

`latency`: a call to another datacenter costs one round trip. `kill`: kill -9 of one of three providers under 1,000
calls a second. `load`: heartbeats beside calls and streams at full rate. `idle`: what it costs to offer services that
nobody calls.

Every member is a process of its own in a network namespace of its own: the providers run `bench provide`, the callers
`bench drive` on a fourth host of each datacenter. Needs root and the lab that gives the namespaces (--netlab). It prints
a table; the last line is a JSON object. Exit status 0 only if every bound was met.
"""
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import bed as beds
from bed import PATIENCE, Failed, Lab

DCS, HOSTS, SPARE = 3, 3, 1
WAN_DELAY = "20ms"  # one way
PROVIDERS = ["dc1h1", "dc1h2", "dc1h3"]
VICTIM = "dc1h2"  # no seed
CALLERS = {"caller1": "dc1h4", "caller2": "dc2h4", "caller3": "dc3h4"}
RATES = {"caller1": 600, "caller2": 200, "caller3": 200}  # calls a second in `kill`

OVER_ROUND_TRIP = 1.0  # ms that a call to another datacenter takes at the median beyond a ping
KILL_SECONDS, KILL_AFTER = 12.0, 3.0  # length of `kill`, and when it kills
AFTER_VERDICT = 100.0  # ms from the verdict until the last pending call has ended, without the round trip of a retry
ROUND_TRIP = 40.0  # ms
FULL_RATE = 1000.0  # ms from the verdict until the callers have their full rate again
IDLE_SERVICES = 20
SILENCE = 1.0  # s without an answer at a caller, or without a byte on its streams, under `load`
BULK_LEAST = 4.0  # MiB/s of the streams under `load`
SETTLE = 5.0  # seconds after one view before idle costs are measured


class Bed(beds.Bed):
    def ran(self, node):
        return os.path.join(self.lab.root, f"{node}.ran")

    def start(self, node):
        if node in PROVIDERS:
            self.lab.start(node, "--ran", self.ran(node), command=("bench", "provide"))
        else:
            self.lab.start(node)
        self.watch.follow(node)

    def begin(self):
        """Builds the lab. `idle` takes it down, since its clusters have labs of their own, so `idle` comes last."""
        names = self.arguments.experiments
        names.sort(key=lambda name: name == "idle")
        if names == ["idle"]:
            return
        self.up("--wan-delay", WAN_DELAY)
        for caller, host in CALLERS.items():
            self.lab.add(caller, host)
        self.start_all()
        self.until_one_view()

    def experiment(self, name):
        """Runs one experiment from the same state: all nodes run, and all see all as live."""
        if name != "idle":
            self.start_all()
            self.until_one_view("one view before")
        return super().experiment(name)

    def table(self):
        """Prints all figures with their bounds."""
        if not self.rows:
            return
        widths = [max(len(row[column]) for row in self.rows) for column in range(3)]
        print(f"load of the machine: {' '.join(open('/proc/loadavg').read().split()[:3])}")
        for row in self.rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + f"  {row[3]}")

    def drive(self, caller, *flags):
        """Starts a caller; it has begun when this returns."""
        path = os.path.join(self.lab.root, f"{caller}.out")
        with open(path, "wb") as out:
            self.lab.start(caller, "--providers", str(len(PROVIDERS)), *flags, command=("bench", "drive"), out=out)
        return path

    def begun(self, *callers):
        def waits():
            for caller in callers:
                if not self.lab.runs(caller):
                    raise Failed(f"{caller} has ended: {self.tail(caller)}")
            return [c for c in callers if not os.path.getsize(os.path.join(self.lab.root, f"{c}.out"))]
        self.lab.until(f"{', '.join(callers)} call", waits)
        return time.monotonic()

    def tail(self, node):
        with open(self.lab.log(node), errors="replace") as lines:
            return "".join(lines.readlines()[-3:]).strip()

    def reports(self, *callers, patience):
        """Waits for the callers to end, and returns what they have printed."""
        found = {}
        for caller in callers:
            try:
                code = self.lab.agents[caller].wait(timeout=patience)
            except subprocess.TimeoutExpired:
                raise Failed(f"{caller} has not ended within {patience:.0f} s")
            with open(os.path.join(self.lab.root, f"{caller}.out")) as lines:
                last = (lines.read().strip().splitlines() or [""])[-1]
            report = json.loads(last or "{}")
            if code or "sent" not in report:
                raise Failed(f"{caller} ended with {code}: {report.get('void')} {self.tail(caller)}")
            found[caller] = report
        return found


# --- experiments: each returns its observations


def latency(bed):
    """A call to another datacenter takes one round trip, and at most 1 ms more at the median."""
    seconds = bed.arguments.latency
    target = bed.lab.addresses[PROVIDERS[0]]
    bed.drive("caller2", "--only-datacenter", "dc1", "--rate", "50", "--seconds", str(seconds))
    bed.begun("caller2")
    ping = subprocess.run(
        [sys.executable, bed.lab.netlab, "--lab", bed.lab.name, "exec", CALLERS["caller2"], "--",
         "ping", "-n", "-i", "0.05", "-c", str(int(seconds * 20)), target],
        capture_output=True, text=True, timeout=PATIENCE + seconds)
    pings = [float(found) for found in re.findall(r"time=([\d.]+) ms", ping.stdout)]
    if not pings:
        raise Failed(f"ping from caller2 to {target} had no answer: {ping.stderr.strip()}")
    report = bed.reports("caller2", patience=PATIENCE)["caller2"]
    trip, times = statistics.median(pings), report["latency_ms"]
    bed.note("ping between datacenters, median", f"{trip:.3f} ms")
    bed.note("call between datacenters: p50, p99", f"{times['p50']:.3f}, {times['p99']:.3f} ms")
    bed.bar("latency: calls that failed", report["sent"] - report["answered"], 0)
    bed.soon_ms("latency: p50 of a call beyond a ping", times["p50"] - trip, OVER_ROUND_TRIP)
    return {"ping_p50_ms": trip, "pings": len(pings), "call": without_rates(report)}


def kill(bed):
    """kill -9 of one of three providers under 1,000 calls a second: calls end at the verdict, and none runs twice."""
    for node in PROVIDERS:
        open(bed.ran(node), "wb").close()
    for caller, rate in RATES.items():
        bed.drive(caller, "--rate", str(rate), "--seconds", str(KILL_SECONDS), "--deadline", "5s")
    begun = bed.begun(*RATES)
    time.sleep(max(0.0, begun + KILL_AFTER - time.monotonic()))
    killed = bed.lab.kill(VICTIM)
    reports = bed.reports(*RATES, patience=PATIENCE)
    seen = bed.watch.wait([node for node in bed.nodes if node != VICTIM], VICTIM, ("dead",), killed, 1.0)
    bed.note("kill: until the other nodes find it dead",
             ", ".join("never" if s is None else f"{s:.2f}" for s in sorted(seen.values(), key=lambda s: s or 1e9)) + " s")

    counts, pending = collections.Counter(), 0
    for caller, report in reports.items():
        echo, once = report["methods"]["echo"], report["methods"]["once"]
        verdict = next((v for v in report["verdicts"] if v["node"] == VICTIM), None)
        if verdict is None:
            raise Failed(f"{caller} had no verdict about {VICTIM} within {KILL_SECONDS} s")
        counts["sent"] += report["sent"]
        counts["idempotent failed"] += sum(sum(kind.values()) for kind in echo["failed"].values())
        counts["answered once"] += once["answered"]
        for kind, reasons in once["failed"].items():
            counts.update({f"{kind} {reason}": count for reason, count in reasons.items()})
        pending += verdict["failed"] + report["retried"]
        bed.soon_ms(f"kill: {caller}: from the verdict to the last failed call",
                    max(0.0, verdict["last_failed_ms"] or 0.0), AFTER_VERDICT)
        bed.soon_ms(f"kill: {caller}: from the verdict to the end of all pending calls", verdict["pending_ended_ms"],
                    AFTER_VERDICT + ROUND_TRIP)
        bed.soon_ms(f"kill: {caller}: from the verdict to the full rate", verdict["full_rate_ms"], FULL_RATE)
    if not pending:
        raise Failed("no call was pending at the killed provider, so nothing was tested")
    bed.note("kill: calls sent; retried, or failed at the killed provider", f"{counts['sent']}; {pending}")
    other = {reason: count for reason, count in counts.items() if reason.startswith(("not_run", "unknown", "failed"))}
    bed.note("kill: failed calls that are not idempotent", ", ".join(f"{n} {r}" for r, n in other.items()) or "0")
    bed.bar("kill: idempotent calls that failed", counts["idempotent failed"], 0)
    expected = ("unknown NodeDead", "unknown Connection")
    bed.bar("kill: other calls that did not end by the verdict",
            sum(count for reason, count in other.items() if reason not in expected), 0)
    times = collections.Counter()
    for node in PROVIDERS:
        with open(bed.ran(node)) as lines:
            times.update(lines.read().split())
    bed.note("kill: calls that are not idempotent, answered; ran", f"{counts['answered once']}; {len(times)}")
    bed.bar("kill: calls that are not idempotent and ran twice", sum(1 for count in times.values() if count > 1), 0)
    bed.bar("kill: calls that were answered and did not run", max(0, counts["answered once"] - len(times)), 0)
    return {caller: without_rates(report) for caller, report in reports.items()}


def load(bed):
    """Calls and streams at full rate inside a datacenter, calls from the others: nobody is suspected.

    The lab's delay line is slower than the streams, so none crosses it. Bytes and answers must come all the time: a
    stream or a caller that stands still would be no load.
    """
    seconds = bed.arguments.seconds
    bed.drive("caller1", "--concurrency", "64", "--bulk", "2", "--seconds", str(seconds))
    for caller in ("caller2", "caller3"):
        bed.drive(caller, "--rate", str(RATES[caller]), "--seconds", str(seconds))
    begun = bed.begun(*CALLERS)
    reports = bed.reports(*CALLERS, patience=seconds + PATIENCE)
    accusations = bed.watch.accusations(begun)
    bed.print_accusations(accusations)
    near = reports["caller1"]
    bed.note("load: calls a second; p50, p99", f"{near['answered'] / seconds:.0f}; "
             f"{near['latency_ms']['p50']:.1f}, {near['latency_ms']['p99']:.1f} ms")
    bulk = near["bulk"]
    bed.note("load: streams", f"{bulk['mib_per_s']:.1f} MiB/s for {seconds:g} s, {bulk['streams_ended']} read to their end")
    bed.bar("load: of the bytes that the streams have to bring, those missing",
            max(0, int(BULK_LEAST * 2**20 * seconds / bed.arguments.slack) - bulk["bytes"]), 0)
    bed.bar("load: the longest time without a byte on the streams",
            silence(bulk["bytes_per_second"], 1.0, seconds), SILENCE * bed.arguments.slack, "s")
    for caller, report in reports.items():
        bed.bar(f"load: {caller}: the longest time without an answer",
                silence(report["answered_per_100_ms"], 0.1, seconds), SILENCE * bed.arguments.slack, "s")
    for caller in ("caller2", "caller3"):
        due = int(RATES[caller] * seconds)
        bed.bar(f"load: {caller}: calls that were due and not answered", due - reports[caller]["answered"], 0)
    bed.bar("load: nodes suspected or dead, in the events of all nodes", len(accusations), 0)
    bed.bar("load: nodes suspected, in the events of the callers", sum(len(r["suspected"]) for r in reports.values()), 0)
    bed.bar("load: calls that failed", sum(r["sent"] - r["answered"] for r in reports.values()), 0)
    bed.bar("load: streams that failed", sum(near["bulk"]["failed"].values()), 0)
    return {caller: without_rates(report) for caller, report in reports.items()}


def idle(bed):
    """Two clusters side by side, one whose nodes offer 20 services each: CPU and bytes are the same."""
    bed.end(False)
    labs = {services: Lab(bed.arguments.netlab, bed.arguments.binary, DCS, HOSTS, suffix=f"s{services}")
            for services in (0, IDLE_SERVICES)}
    try:
        for services, lab in labs.items():
            lab.up("--wan-delay", WAN_DELAY)
            for node in lab.nodes:
                lab.start(node, "--idle-services", str(services), "--no-echo", command=("bench", "provide"))
        for services, lab in labs.items():
            lab.until(f"{services} services: one view", lambda lab=lab: lab.see(lab.nodes, lab.nodes, "live"))
        offers = json.loads(labs[IDLE_SERVICES].run(
            "--dir", labs[IDLE_SERVICES].dir("dc3h3"), "services", "--json").stdout)
        if len(offers) != IDLE_SERVICES * DCS * HOSTS:
            raise Failed(f"dc3h3 lists {len(offers)} services")
        time.sleep(SETTLE)
        before = {services: spent(lab) for services, lab in labs.items()}
        time.sleep(bed.arguments.idle)
        after = {services: spent(lab) for services, lab in labs.items()}
    finally:
        for lab in labs.values():
            lab.down(False)
    used = {services: [b - a for a, b in zip(before[services], after[services])] for services in labs}
    nodes = DCS * HOSTS * bed.arguments.idle
    for index, (what, unit, scale) in enumerate([("CPU", "us/s", 1e6), ("bytes", "B/s", 1.0)]):
        without, with_services = used[0][index] * scale / nodes, used[IDLE_SERVICES][index] * scale / nodes
        bed.note(f"idle: {what} of a node without, with {IDLE_SERVICES} services",
                 f"{without:.1f}, {with_services:.1f} {unit}")
        bed.bar(f"idle: {what} that {IDLE_SERVICES} services add", 100.0 * (with_services / without - 1.0),
                bed.arguments.percent, "%")
    return {f"{services}_services": {"cpu_s": round(cpu, 4), "bytes": count} for services, (cpu, count) in used.items()}


def spent(lab):
    """Returns the CPU time of all agents in seconds, and the bytes of their hosts' links."""
    nanoseconds, count = 0, 0
    for node in lab.nodes:
        process = f"/proc/{lab.agents[node].pid}"
        for thread in os.listdir(f"{process}/task"):
            with open(f"{process}/task/{thread}/schedstat") as stat:
                nanoseconds += int(stat.read().split()[0])
        with open(f"{process}/net/dev") as devices:
            for line in devices.readlines()[2:]:
                name, numbers = line.split(":")
                if name.strip() != "lo":
                    numbers = numbers.split()
                    count += int(numbers[0]) + int(numbers[8])
    return nanoseconds / 1e9, count


def silence(counts, slot, seconds):
    """The longest time in which nothing was counted, in whole slots, from the beginning until `seconds`."""
    slots = int(seconds / slot)
    longest = current = 0
    for count in (counts + [0] * slots)[:slots]:
        current = 0 if count else current + 1
        longest = max(longest, current)
    return longest * slot


def without_rates(report):
    kept = {name: value for name, value in report.items() if name != "answered_per_100_ms"}
    if kept.get("bulk"):
        kept["bulk"] = {name: value for name, value in kept["bulk"].items() if name != "bytes_per_second"}
    return kept


EXPERIMENTS = {"latency": latency, "kill": kill, "load": load, "idle": idle}


# --- running the experiments


def main():
    parser = beds.parser(__doc__, EXPERIMENTS)
    parser.add_argument("--latency", type=float, default=10.0, help="seconds of latency (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load (%(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idle (%(default)s)")
    parser.add_argument("--percent", type=float, default=2.0, help="that idle services may add (%(default)s)")
    bed = Bed(beds.parse(parser, EXPERIMENTS), EXPERIMENTS, DCS, HOSTS, SPARE)
    sys.exit(beds.run(bed))


if __name__ == "__main__":
    main()
