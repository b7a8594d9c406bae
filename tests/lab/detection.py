#!/usr/bin/env python3
"""Failure detection among three datacenters of three agents: detection times and false accusations.

Every agent is a process of its own in a network namespace of its own, 40 ms away from other
datacenters; every packet is lost with a probability of 1 %, also inside a datacenter. The script reads
from the agents' own events what they report about each other. Before and after each experiment all agents
consider all others live (one view).

Needs root and the lab that gives the namespaces (--netlab); `clock` needs libfaketime and is skipped
without it. The last line is a JSON object. Exit status 0 only if every bound was met.
"""
import collections
import glob
import math
import os
import random
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import bed as beds
from bed import PORT, Failed

DCS, HOSTS, SPARE = 3, 3, 1
LOSS = 0.01  # of every packet, unless an experiment sets another
SETTLE = 3.0  # seconds of one view before an experiment begins

SUSPECT_P50, SUSPECT_P99 = 0.5, 1.0  # seconds from kill -9 until its datacenter suspects it
LIVE_AGAIN = 10.0  # seconds until all consider a reachable node live again
ONE_VIEW = 15.0  # seconds from a heal until there is one view
DETECT = 20.0  # seconds within which a failure must be detected


class Skipped(Exception):
    pass


class Bed(beds.Bed):
    def blames(self, what, accusations):
        """Checks that there were no accusations."""
        self.print_accusations(accusations)
        self.bar(f"{what}: false accusations", len(accusations), 0)

    def others(self, *but):
        return [node for node in self.nodes if node not in but]

    def inside(self, node):
        """Returns the other nodes of its datacenter."""
        return [other for other in self.others(node) if other[:3] == node[:3]]

    # --- agents

    def start(self, node, *flags, environment=()):
        self.lab.start(node, *flags, named=True, environment=environment)
        self.watch.follow(node)

    def restart(self, node, *flags, environment=()):
        self.lab.kill(node)
        self.start(node, *flags, environment=environment)

    def one_view(self, what, begun=None):
        """Waits until all consider all live. Returns the seconds since `begun`."""
        begun = time.monotonic() if begun is None else begun
        took = self.lab.agree(self.nodes, begun)
        print(f"ok: {what}: one view ({took:.1f} s)", flush=True)
        return took

    # --- the network

    def lose(self, share=LOSS):
        """Sets the loss of every link."""
        self.lab.net("loss", "all", "all", f"{share * 100:.4f}%")

    def heal(self):
        """Removes all impairments but the usual loss. Returns the moment before."""
        begun = time.monotonic()
        self.lab.net("heal")
        self.lose()
        return begun

    def settle(self, wait=SETTLE):
        time.sleep(wait)

    def restore(self):
        """Restores the state before an experiment: all agents run, all links work, and there is one view."""
        self.heal()
        self.start_all()
        self.one_view("before")
        self.settle()

    def begin_anew(self):
        """Restarts all agents, so that a failed experiment does not affect the next one."""
        self.heal()
        for node in self.nodes:
            if self.lab.runs(node):
                self.lab.kill(node)
        self.lab.hosts = {node: node for node in self.nodes}
        self.lab.name_seeds()
        self.start_all()

    def begin(self):
        self.up("--wan-delay", "40ms")
        self.begin_anew()

    def experiment(self, name):
        """Runs one experiment; returns its observations, and records the bounds that it missed."""
        missed, report = len(self.missed), {}
        try:
            self.restore()
            report = super().experiment(name)
        except Skipped as why:
            print(f"SKIPPED: {name}: {why}", flush=True)
            report = {"skipped": str(why)}
        except (Failed, subprocess.TimeoutExpired) as error:
            print(f"FAILED: {name}: {error}", flush=True)
            self.missed.append(f"{name}: {error}")
            self.begin_anew()
        report["missed"] = self.missed[missed:]
        return report


# --- experiments: each returns its observations


def kill(bed):
    """kill -9 of one agent, repeatedly, at 1 % loss: the time until the others of its datacenter suspect it."""
    suspected, dead, back, false = [], [], [], 0
    for attempt in range(bed.arguments.tries):
        victim = bed.nodes[attempt % len(bed.nodes)]
        # A random moment between two heartbeats.
        time.sleep(random.uniform(1.0, 2.0))
        begun = bed.lab.kill(victim)
        bad = ("suspect", "dead")
        inside = bed.watch.wait(bed.inside(victim), victim, bad, begun, DETECT)
        everywhere = bed.watch.wait(bed.others(victim), victim, ("dead",), begun, DETECT)
        suspected.append(worst(inside))
        dead.append(worst(everywhere))
        bed.start(victim)
        back.append(bed.lab.agree(bed.nodes, time.monotonic()))
        others = bed.watch.accusations(begun, but=[victim])
        false += len(others)
        print(f"  {victim}: suspect after {listed(inside.values())}, dead everywhere after {listed([dead[-1]])}, "
              f"back after {listed([back[-1]])}; others accused: {len(others)}", flush=True)
    bed.soon("from kill -9 until its datacenter suspects it, p50", quantile(suspected, 0.5), SUSPECT_P50)
    bed.soon("from kill -9 until its datacenter suspects it, p99", quantile(suspected, 0.99), SUSPECT_P99)
    bed.bar("kill -9: tries in which some node did not find it dead", sum(d is None for d in dead), 0)
    bed.bar("kill -9: false accusations", false, 0)
    return {"tries": len(suspected), "suspect_s": summary(suspected), "dead_everywhere_s": summary(dead),
            "back_s": summary(back), "false_accusations": false}


def loss(bed):
    """5 % loss on every link, for a while: no node is called dead."""
    bed.lose(0.05)
    begun, told = time.monotonic(), 0
    end = begun + bed.arguments.seconds
    while time.monotonic() < end:
        time.sleep(min(60.0, max(0.0, end - time.monotonic())))
        accusations = bed.watch.accusations(begun)
        for said in accusations[told:]:
            print(f"  after {said.at - begun:.1f} s: {said.observer} reported {said.peer} as {said.state}", flush=True)
        told = len(accusations)
    accusations = bed.watch.accusations(begun)
    suspicions = [said for said in accusations if said.state == "suspect"]
    deaths = [said for said in accusations if said.state == "dead"]
    stopped = [node for node in bed.nodes if not bed.lab.runs(node)]
    bed.bar("5 % loss: false deaths", len(deaths), 0)
    bed.bar("5 % loss: agents that have ended", len(stopped), 0)
    return {"minutes": round((time.monotonic() - begun) / 60, 1), "false_deaths": len(deaths),
            "false_suspicions": len(suspicions), "suspected": count(said.peer for said in suspicions)}


def half_loss(bed):
    """Every second packet is lost on every link: no node is called dead."""
    bed.lose(0.5)
    begun = time.monotonic()
    time.sleep(bed.arguments.spell)
    accusations = bed.watch.accusations(begun)
    bed.bar("50 % loss: false deaths", sum(said.state == "dead" for said in accusations), 0)
    took = bed.one_view("50 % loss", bed.heal())
    bed.soon("from the heal to one view, 50 % loss", took, ONE_VIEW)
    return {"said": count(said.state for said in accusations)}


def lossy_node(bed):
    """80 % loss on one node's link, both ways: no other node is accused."""
    return bad_link(bed, "80 % loss on one link", lambda victim: bed.lab.net("loss", victim, "80%"))


def lossy_ingress(bed):
    """80 % of the packets sent to one node are lost: no other node is accused."""
    return bad_link(bed, "80 % ingress loss on one node", lambda victim: bed.lab.net("loss", "--oneway", "all", victim, "80%"))


def no_inbound(bed):
    """One node receives nothing, but all hear it: it may be live or dead, but no other node is accused."""
    return bad_link(bed, "no inbound", lambda victim: bed.lab.net("cut", "--oneway", "all", victim))


def no_outbound(bed):
    """One node hears all others, but no other node hears it: no other node is accused."""
    return bad_link(bed, "no outbound", lambda victim: bed.lab.net("cut", "--oneway", victim), gone=True)


def isolated(bed):
    """One node is cut off in both directions: no other node is accused."""
    return bad_link(bed, "cut off", lambda victim: bed.lab.net("cut", victim), gone=True)


def bad_link(bed, what, impair, gone=False):
    """Impairs the link of one node: only that node may be accused by the others."""
    victim = "dc2h2"
    begun = time.monotonic()
    impair(victim)
    time.sleep(bed.arguments.spell)
    healthy = bed.others(victim)
    if gone:
        held = bed.watch.wait(healthy, victim, ("dead",), begun, 0.0)
        bed.bar(f"{what}: healthy nodes that have not found it dead", sum(at is None for at in held.values()), 0)
    return aftermath(bed, what, victim, begun)


def flip(bed):
    """One node receives nothing for 20 s, then everything for 20 s, and so on."""
    victim, half = "dc2h2", bed.arguments.flip
    begun = time.monotonic()
    for _ in range(bed.arguments.cycles):
        bed.lab.net("cut", "--oneway", "all", victim)
        time.sleep(half)
        bed.lab.net("heal", "all", victim)
        time.sleep(half)
    return aftermath(bed, f"one-way, {half:.0f} s on and off", victim, begun)


def aftermath(bed, what, victim, begun):
    """Heals, waits for one view, and judges the reports of the healthy nodes."""
    during, deaths = changes(bed, victim, begun), changes(bed, victim, begun, "dead")
    healed = bed.heal()
    bed.soon(f"from the heal to one view, {what}", bed.one_view(what, healed), ONE_VIEW)
    bed.settle()
    healthy = bed.others(victim)
    bed.blames(f"{what}, in the views of healthy nodes", bed.watch.accusations(begun, but=[victim], by=healthy))
    by_it = bed.watch.accusations(begun, but=[victim], by=[victim])
    return {"changes_per_healthy_view": during, "deaths_per_healthy_view": deaths, "accused_by_it": count(said.state for said in by_it)}


def changes(bed, victim, begun, *states):
    """Returns how often the victim changed state (to one of these), for the healthy node that saw most changes."""
    seen = collections.Counter(said.observer for said in bed.watch.since(begun)
                               if said.peer == victim != said.observer and (not states or said.state in states))
    return max(seen.values(), default=0)


def forgotten(bed):
    """One node is cut off until all have forgotten it, and it has forgotten its datacenter: it comes back by itself.

    It reports no deaths in other datacenters, so it forgets no node there.
    """
    victim, keep = "dc3h3", "12s"
    healthy = bed.others(victim)
    for node in bed.nodes:
        bed.restart(node, "--forget-after", keep)
    bed.one_view("agents with a short --forget-after")
    bed.settle()
    begun = time.monotonic()
    bed.lab.net("cut", victim)
    bed.lab.until("alone: it has forgotten its datacenter", lambda: known(bed, [victim], bed.inside(victim)))
    bed.lab.until("alone: all others have forgotten it", lambda: known(bed, healthy, [victim]))
    bed.blames("alone, in the views of healthy nodes", bed.watch.accusations(begun, but=[victim], by=healthy))
    took = bed.one_view("alone", bed.heal())
    bed.soon("from the heal to one view, alone", took, 60.0)
    for node in bed.nodes:
        bed.restart(node)
    return {"one_view_s": round(took, 1)}


def known(bed, observers, targets):
    """Returns which observers still know one of the targets."""
    return {at: found for at in observers if (found := sorted(set(targets) & set(bed.lab.states(at))))}


def pair(bed):
    """Two nodes cannot hear each other, but all others hear both: no node is accused."""
    report = {}
    for a, b in (("dc1h1", "dc1h2"), ("dc1h3", "dc2h3"), ("dc1h1", "dc2h1")):
        for oneway in ([], ["--oneway"]):
            what = f"between {a} and {b} only{', one way' if oneway else ''}"
            begun = time.monotonic()
            bed.lab.net("cut", *oneway, a, b)
            time.sleep(bed.arguments.spell / 2)
            bed.heal()
            bed.settle()
            accusations = bed.watch.accusations(begun)
            bed.blames(what, accusations)
            report[what] = count(f"{said.observer} says {said.peer} is {said.state}" for said in accusations)
    return report


def pause(bed):
    """SIGSTOP of one agent, later SIGCONT: it accuses no node, no other node is accused, and it is back."""
    report = {}
    for seconds in bed.arguments.pauses:
        victim, what = "dc3h2", f"stopped for {seconds:g} s"
        begun = time.monotonic()
        bed.lab.agents[victim].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        resumed = time.monotonic()
        bed.lab.agents[victim].send_signal(signal.SIGCONT)
        back = bed.one_view(what, resumed)
        bed.soon(f"until all consider it live, {what}", back, LIVE_AGAIN)
        bed.settle(5.0)
        bed.blames(what, bed.watch.accusations(begun, but=[victim]))
        said = count(said.state for said in bed.watch.accusations(begun, of=[victim]))
        report[f"{seconds:g}"] = {"back_s": round(back, 2), "said_of_it": said}
    return report


def halves(bed):
    """A partition through the middle of a datacenter, healed, and then another one: one view."""
    nodes, report = bed.nodes, {}
    for name, half in (("first", nodes[:4]), ("second", [*nodes[:2], *nodes[3:5]])):
        rest = [node for node in nodes if node not in half]
        for a, b in boundary(half, rest):
            bed.lab.net("cut", a, b)
        # If no node of a datacenter can be reached, its nodes are unreachable, not dead.
        gone = ("dead", "unreachable")
        took = bed.lab.until(f"{name} partition: each half finds the other dead or unreachable",
                             lambda: bed.lab.see(half, rest, *gone) or bed.lab.see(rest, half, *gone), DETECT * 2)
        bed.lab.until(f"{name} partition: each half considers itself live",
                      lambda: bed.lab.see(half, half, "live") or bed.lab.see(rest, rest, "live"), DETECT)
        # A node that starts meanwhile is in its half at once, and in the other half after the heal.
        joins = half[-1]
        bed.restart(joins)
        bed.lab.until(f"{name} partition: its half considers {joins} live again", lambda: bed.lab.see(half, half, "live"))
        healed = bed.heal()
        one = bed.one_view(f"{name} partition", healed)
        bed.soon(f"from the heal to one view, {name} partition", one, ONE_VIEW)
        report[name] = {"noticed_s": round(took, 1), "one_view_s": round(one, 2)}
    begun = time.monotonic()
    bed.settle(10.0)
    bed.blames("after two partitions", bed.watch.accusations(begun))
    return report


def boundary(half, rest):
    """Returns the pairs to cut between two halves, whole datacenters at once where possible."""
    def parts(side):
        for dc in sorted({node[:3] for node in side}):
            inside = [node for node in side if node[:3] == dc]
            yield from [dc] if len(inside) == HOSTS else inside
    return [(a, b) for a in parts(half) for b in parts(rest)]


def clock(bed):
    """The wall clock of one agent jumps by an hour, both ways: nothing changes."""
    library = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        raise Skipped("libfaketime is not here (apt-get install faketime)")
    victim, other, report = "dc2h3", "dc2h2", {}
    offset = os.path.join(bed.lab.root, "offset")
    show(offset, "+0")
    bed.restart(victim, environment=[
        f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1"])
    bed.one_view("under libfaketime")
    bed.settle(5.0)
    for step in ("+1h", "-1h", "+0"):
        begun = time.monotonic()
        show(offset, step)
        bed.settle(bed.arguments.spell / 2)
        bed.blames(f"the wall clock shows {step}", bed.watch.accusations(begun))
        # A node that restarts is not affected either.
        killed = time.monotonic()
        bed.restart(other)
        back = bed.one_view(f"restart of {other} at {step}")
        bed.soon(f"until all consider a restarted node live, the wall clock shows {step}", back, LIVE_AGAIN)
        bed.settle()
        bed.blames(f"the wall clock shows {step}, a restart", bed.watch.accusations(killed, but=[other]))
        report[step] = {"back_s": round(back, 2)}
    with open(bed.lab.log(victim), errors="replace") as lines:
        hours = {line[11:13] for line in lines if line[:2] == "20"}
    # Otherwise the experiment has tested nothing.
    bed.bar("the wall clock: jumps that the agent's log does not show", max(0, 3 - len(hours)), 0)
    bed.restart(victim)
    bed.one_view("without libfaketime")
    return report


def show(path, offset):
    with open(path + ".new", "w") as file:
        file.write(f"{offset}\n")
    os.replace(path + ".new", path)


def restart(bed):
    """kill -9 and restart on the same address, before and after it was found dead: no other node is accused."""
    report = {}
    for what, wait in (("at once", 0.0), ("when suspect", 1.0), ("when dead", 6.0)):
        victim = "dc1h2"
        before = bed.lab.members("dc3h3")[victim]["generation"]
        begun = bed.lab.kill(victim)
        time.sleep(wait)
        bed.start(victim)
        started = time.monotonic()
        back = bed.one_view(f"restarted {what}", started)
        bed.soon(f"until all consider it live, restarted {what}", back, LIVE_AGAIN)
        bed.lab.until(f"restarted {what}: its new generation is known", lambda: next(
            (at for at in bed.nodes if bed.lab.members(at)[victim]["generation"] <= before), None))
        bed.settle()
        bed.blames(f"restarted {what}", bed.watch.accusations(begun, but=[victim]))
        # Accusations of the earlier generation must have ended by now.
        bed.blames(f"restarted {what}, it lives", bed.watch.accusations(started + back, of=[victim]))
        report[what] = {"back_s": round(back, 2)}
    return report


def move(bed):
    """The same name on another address, and back."""
    report = {}
    for what, host in (("to another host", "dc1h4"), ("back", "dc1h3")):
        victim = "dc1h3"
        begun = bed.lab.kill(victim)
        bed.lab.hosts[victim] = host
        bed.start(victim)
        back = bed.one_view(f"moved {what}")
        bed.soon(f"until all consider it live, moved {what}", back, LIVE_AGAIN)
        address = f"{bed.lab.addresses[victim]}:{PORT}"
        bed.lab.until(f"moved {what}: all know its address", lambda: next(
            (at for at in bed.nodes if bed.lab.members(at)[victim]["address"] != address), None))
        bed.settle()
        bed.blames(f"moved {what}", bed.watch.accusations(begun, but=[victim]))
        report[what] = {"back_s": round(back, 2)}
    return report


def seeds(bed):
    """All agents but one are down, and the seeds come back at other addresses: the remaining one finds them by name."""
    survivor, report = "dc2h2", {}
    for what, host in (("moved", 4), ("moved back", 1)):
        for node in bed.others(survivor):
            bed.lab.kill(node)
        bed.lab.until(f"seeds {what}: it considers no other node live", lambda: bed.lab.see([survivor], bed.others(survivor), "dead", "unreachable"))
        for seed in bed.lab.seeds:
            bed.lab.hosts[seed] = f"{seed[:3]}h{host}"
        bed.lab.name_seeds()
        for seed in bed.lab.seeds:
            bed.start(seed)
        together = [survivor, *bed.lab.seeds]
        begun = time.monotonic()
        took = bed.lab.agree(together, begun)
        # Agents resolve names repeatedly, but not all the time.
        bed.soon(f"until it has found them under their new addresses, seeds {what}", took, 60.0)
        for node in bed.others(*together):
            bed.start(node)
        bed.one_view(f"seeds {what}")
        report[what] = {"found_s": round(took, 1)}
    return report


EXPERIMENTS = {
    "kill": kill, "loss": loss, "half-loss": half_loss, "lossy-node": lossy_node, "lossy-ingress": lossy_ingress, "pause": pause,
    "no-inbound": no_inbound, "no-outbound": no_outbound, "isolated": isolated, "pair": pair, "flip": flip,
    "halves": halves, "forgotten": forgotten, "clock": clock, "restart": restart, "move": move, "seeds": seeds,
}


# --- figures


def worst(times):
    """Returns the latest of these; `None` if one of them never came."""
    return None if None in times.values() else max(times.values())


def quantile(values, share):
    """Returns a quantile by nearest rank; a time that never came counts as the worst."""
    ordered = sorted(math.inf if value is None else value for value in values)
    found = ordered[max(0, math.ceil(share * len(ordered)) - 1)]
    return None if found == math.inf else found


def summary(values):
    figures = {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "max": quantile(values, 1.0)}
    return {name: value if value is None else round(value, 3) for name, value in figures.items()}


def listed(values):
    return ", ".join("never" if value is None else f"{value:.3f} s" for value in values)


def count(things):
    return dict(collections.Counter(things).most_common(20))


# --- running the experiments


def main():
    parser = beds.parser(__doc__, EXPERIMENTS)
    parser.add_argument("--tries", type=int, default=30, help="of kill (%(default)s)")
    parser.add_argument("--minutes", type=float, default=2.0, help="of loss (%(default)s)")
    parser.add_argument("--hours", type=float, default=0.0, help="of loss, in addition")
    parser.add_argument("--spell", type=float, default=30.0, help="seconds for which a link is bad (%(default)s)")
    parser.add_argument("--pauses", type=float, nargs="+", default=[1.0, 3.0, 10.0, 30.0],
                        help="seconds for which an agent is stopped (%(default)s)")
    parser.add_argument("--flip", type=float, default=20.0, help="seconds on, and off (%(default)s)")
    parser.add_argument("--cycles", type=int, default=3, help="of flip (%(default)s)")
    arguments = beds.parse(parser, EXPERIMENTS)
    arguments.seconds = 60.0 * arguments.minutes + 3600.0 * arguments.hours
    bed = Bed(arguments, EXPERIMENTS, DCS, HOSTS, SPARE)
    sys.exit(beds.run(bed))


if __name__ == "__main__":
    main()
