"""Shared parts of the experiments in the lab: agents, each a process in a network namespace of its own.

`Lab`: the agents. `Watch`: what they report about each other. `Bed`: both, with the bounds of a script's experiments;
`parser`, `parse` and `run` are its command line. The experiments and their bounds are in the scripts beside it.
"""
import argparse
import collections
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

PORT = 7101
PATIENCE = 120.0  # seconds within which an expected state must be reached
HOSTS_FILE = "hosts"  # in the lab's directory: names of seeds, for agents that get their seeds by name

STATES = {"peer_live": "live", "peer_suspect": "suspect", "peer_dead": "dead", "peer_left": "left",
          "peer_forgotten": "forgotten", "peer_revoked": "revoked"}

# An observer's event: at this moment of the monotonic clock it reported a peer in a state.
Said = collections.namedtuple("Said", "at observer state peer event")


class Failed(Exception):
    pass


class Lab:
    """The namespaces, and the agents in them. A node is named after the host on which it starts first."""

    def __init__(self, netlab, binary, dcs, hosts, spare=0, suffix=""):
        """`spare`: number of hosts in each datacenter that have no agent at first; `suffix`: of another lab's name."""
        self.netlab, self.binary = os.path.abspath(netlab), os.path.abspath(binary)
        self.dcs, self.size = dcs, hosts + spare
        self.name = f"gm{os.getpid()}{suffix}"
        self.root = tempfile.mkdtemp(prefix="gossipmonger-lab-")
        self.nodes = [f"dc{d}h{h}" for d in range(1, dcs + 1) for h in range(1, hosts + 1)]
        self.seeds = [f"dc{d}h1" for d in range(1, dcs + 1)]
        self.hosts = {node: node for node in self.nodes}
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

    def up(self, *impairments):
        self.net("up", "--dcs", str(self.dcs), "--hosts", str(self.size), *impairments)
        pki = os.path.join(self.root, "pki")
        self.run("ca", "init", "--cluster", "lab", "--dir", pki)
        for node in self.nodes:
            self.run("cert", "issue", "--ca", pki, "--node", node, "--datacenter", node[:3],
                     "--dir", self.dir(node))
        hosts = [f"dc{d}h{h}" for d in range(1, self.dcs + 1) for h in range(1, self.size + 1)]
        self.host_addresses = {host: self.net("addr", host) for host in hosts}
        self.name_seeds()

    def add(self, node, host):
        """Adds a node that starts on this host, after `up`."""
        self.hosts[node] = host
        self.run("cert", "issue", "--ca", os.path.join(self.root, "pki"), "--node", node, "--datacenter", host[:3],
                 "--dir", self.dir(node))

    @property
    def addresses(self):
        return {node: self.host_addresses[host] for node, host in self.hosts.items()}

    def name_seeds(self):
        """Makes the names of the seeds resolve to their current addresses, also for running agents."""
        # Written in place, since the agents have mounted this very file.
        with open(os.path.join(self.root, HOSTS_FILE), "w") as names:
            names.write("127.0.0.1 localhost\n")
            for seed in self.seeds:
                names.write(f"{self.addresses[seed]} {seed}.lab\n")

    def start(self, node, *flags, named=False, environment=(), command=("agent",), out=None):
        """Starts an agent; `named`: it gets its seeds by name, not by address; `command`: another one that runs an
        agent; `out`: the file for its output, if that does not belong in the log."""
        binary = [self.binary]
        if named:
            # Mounts are private to the namespace.
            mounts = 'mount --bind "$0" /etc/hosts && exec "$@"'
            binary = ["sh", "-c", mounts, os.path.join(self.root, HOSTS_FILE), *binary]
        line = [sys.executable, self.netlab, "--lab", self.name, "exec", self.hosts[node], "--",
                "env", *environment, *binary, *command, "--dir", self.dir(node),
                "--listen", f"0.0.0.0:{PORT}", "--advertise", f"{self.addresses[node]}:{PORT}", *flags]
        for seed in self.seeds:
            if seed != node:
                line += ["--seed", f"{seed}.lab:{PORT}" if named else f"{self.addresses[seed]}:{PORT}"]
        with open(self.log(node), "ab") as log:
            self.agents[node] = subprocess.Popen(line, stdout=out or log, stderr=log)

    def log(self, node):
        return os.path.join(self.root, f"{node}.log")

    def runs(self, node):
        return node in self.agents and self.agents[node].poll() is None

    def kill(self, node):
        """Kills an agent with kill -9. Returns the time on the monotonic clock."""
        begun = time.monotonic()
        self.agents[node].kill()
        self.agents[node].wait()
        return begun

    def states(self, node):
        done = self.run("--dir", self.dir(node), "members", "--json", check=False)
        if done.returncode:
            return {}
        return {m["node"]: m["state"] for m in json.loads(done.stdout)}

    def members(self, node):
        return {m["node"]: m for m in json.loads(self.run("--dir", self.dir(node), "members", "--json").stdout)}

    def keys(self, at, node):
        done = self.run("--dir", self.dir(at), "get", node, "--json", check=False)
        return {entry["key"]: entry["value"] for entry in json.loads(done.stdout)} if done.returncode == 0 else {}

    def set(self, node, key, value):
        self.run("--dir", self.dir(node), "set", key, value)

    def until(self, what, holds, patience=PATIENCE):
        """Waits until `holds` returns no objection. Returns the seconds it took."""
        begun = time.monotonic()
        missing = None
        while time.monotonic() - begun < patience:
            missing = holds()
            if not missing:
                took = time.monotonic() - begun
                print(f"ok: {what} ({took:.1f} s)", flush=True)
                return took
            time.sleep(0.2)
        raise Failed(f"not within {patience:.0f} s: {what}: {missing}")

    def agree(self, nodes, begun):
        """Returns the seconds since `begun` until every node considered all of them live, and still does."""
        waits = list(nodes)
        while time.monotonic() - begun < PATIENCE:
            waits = [at for at in waits if self.see([at], nodes, "live")]
            if not waits:
                took = time.monotonic() - begun
                waits = [at for at in nodes if self.see([at], nodes, "live")]
                if not waits:
                    return took
        raise Failed(f"not the same view again within {PATIENCE:.0f} s: {self.see(nodes, nodes, 'live')}")

    def see(self, observers, targets, *accepted):
        """Returns why the observers do not see every target in one of these states, or None if they do."""
        for at in observers:
            states = self.states(at)
            wrong = {t: states.get(t) for t in targets if states.get(t) not in accepted}
            if wrong:
                return f"{at} sees {wrong}"
        return None

    def down(self, failed):
        for agent in self.agents.values():
            if agent.poll() is None:
                agent.kill()
                agent.wait()
        if failed:
            for node in self.nodes:
                if os.path.exists(self.log(node)):
                    with open(self.log(node), errors="replace") as lines:
                        print(f"--- {node}\n" + "".join(lines.readlines()[-15:]), file=sys.stderr)
        try:
            self.net("down")
        finally:
            shutil.rmtree(self.root, ignore_errors=True)


class Watch(threading.Thread):
    """Reads from the agents' own events what they report about each other, and when.

    The moments are those of reading, some tenths of a millisecond after the agent wrote the event.
    """

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab = lab
        self.said = []
        self.news = threading.Condition()
        self.readers = selectors.DefaultSelector()
        self.streams = {}
        self.start()

    def follow(self, node, patience=PATIENCE):
        """Reads the events of an agent that was just started, if possible from its first moment on."""
        begun = time.monotonic()
        while time.monotonic() - begun < patience:
            command = [self.lab.binary, "--dir", self.lab.dir(node), "events", "--json"]
            stream = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            first = stream.stdout.readline()
            if first and json.loads(first)["event"] == "watching":
                os.set_blocking(stream.stdout.fileno(), False)
                self.streams[node] = stream
                self.readers.register(stream.stdout, selectors.EVENT_READ, [node, stream, b""])
                return
            stream.wait()
            if not self.lab.runs(node):
                raise Failed(f"the agent {node} has ended")
            time.sleep(0.02)
        raise Failed(f"{node} has not reported its events within {patience:.0f} s")

    def run(self):
        while True:
            for key, _ in self.readers.select(timeout=0.05):
                chunk = os.read(key.fileobj.fileno(), 1 << 16)
                at = time.monotonic()
                if not chunk:
                    self.readers.unregister(key.fileobj)
                    key.data[1].wait()
                    continue
                *lines, key.data[2] = (key.data[2] + chunk).split(b"\n")
                self.take(at, key.data[0], lines)

    def take(self, at, observer, lines):
        events = [json.loads(line) for line in lines]
        if any(event["event"] == "lagged" for event in events):
            print(f"{observer}: events were missed", file=sys.stderr, flush=True)
        said = [Said(at, observer, STATES[event["event"]], event["peer"], event)
                for event in events if event["event"] in STATES]
        with self.news:
            self.said += said
            self.news.notify_all()

    def since(self, moment):
        """Returns the events since then."""
        with self.news:
            return [said for said in self.said if said.at >= moment]

    def accusations(self, since, of=None, but=(), by=None):
        """Returns the reports since then that a peer is suspect or dead; `of`: only these peers, `but`: not these."""
        return [said for said in self.since(since)
                if said.state in ("suspect", "dead") and said.peer not in but
                and (of is None or said.peer in of) and (by is None or said.observer in by)]

    def write(self, path):
        """Writes all events, a line of JSON each."""
        with self.news, open(path, "w") as lines:
            for said in self.said:
                lines.write(json.dumps({"at": round(said.at, 4), "observer": said.observer, **said.event}) + "\n")

    def wait(self, observers, peer, states, since, patience):
        """Returns when each observer first reported this, in seconds since then; `None`: not in time."""
        end = since + patience
        found = {}
        with self.news:
            while True:
                for said in itertools.takewhile(lambda said: said.at >= since, reversed(self.said)):
                    if said.peer == peer and said.state in states and said.observer in observers:
                        found[said.observer] = said.at - since
                left = end - time.monotonic()
                if len(found) == len(observers) or left <= 0:
                    return {observer: found.get(observer) for observer in observers}
                self.news.wait(left)

    def close(self):
        """Ends the readers; the agents keep running."""
        for stream in self.streams.values():
            if stream.poll() is None:
                stream.kill()


class Bed:
    """The lab, the observations in it, and the bounds. A script's own class has `begin`, which builds the lab and starts
    the agents."""

    def __init__(self, arguments, experiments, dcs, hosts, spare=0):
        """`experiments`: functions of the bed by name; each returns its observations."""
        self.arguments, self.experiments = arguments, experiments
        self.lab = Lab(arguments.netlab, arguments.binary, dcs, hosts, spare)
        self.nodes = self.lab.nodes
        self.watch = Watch(self.lab)
        self.missed, self.rows = [], []
        self.is_up = False

    # --- bounds

    def bar(self, what, seen, bound, unit=""):
        """Checks that a figure is at most `bound`."""
        met = seen is not None and seen <= bound
        shown = "never" if seen is None else f"{seen:.3f}" if isinstance(seen, float) else str(seen)
        self.rows.append((what, f"{shown} {unit}".strip(), f"{bound:g} {unit}".strip(), "ok" if met else "MISSED"))
        print(f"{'ok' if met else 'MISSED'}: {what}: {shown}, at most {bound:g} {unit}".rstrip(), flush=True)
        if not met:
            self.missed.append(f"{what}: {shown}, more than {bound:g}")

    def soon(self, what, seconds, bound):
        """Checks that a step took at most `bound` seconds, times `--slack` for a slow machine."""
        self.bar(f"seconds {what}", seconds, bound * self.arguments.slack)

    def soon_ms(self, what, milliseconds, bound):
        """The same in milliseconds."""
        self.bar(what, milliseconds, bound * self.arguments.slack, "ms")

    def note(self, what, value):
        """Records a figure that has no bound."""
        self.rows.append((what, value, "", ""))

    def print_accusations(self, accusations):
        """Prints the first accusations."""
        for said in accusations[:10]:
            print(f"  {said.observer} reported {said.peer} as {said.state}", flush=True)

    # --- agents

    def up(self, *impairments):
        """Builds the lab; no agent runs yet."""
        self.is_up = True
        self.lab.up(*impairments)

    def start(self, node):
        self.lab.start(node)
        self.watch.follow(node)

    def start_all(self):
        """Starts the agents that do not run."""
        for node in self.nodes:
            if not self.lab.runs(node):
                self.start(node)

    def until_one_view(self, what="one view"):
        """Waits until all consider all live."""
        self.lab.until(what, lambda: self.lab.see(self.nodes, self.nodes, "live"))

    def experiment(self, name):
        """Runs one experiment; returns its observations."""
        return self.experiments[name](self)

    def end(self, broken):
        """Takes the lab down, if it is up."""
        if self.is_up:
            self.is_up = False
            self.lab.down(broken)

    def table(self):
        """Prints what the script has to say at the end, before the bounds that were missed."""

    def keep(self, directory):
        """Copies the agents' logs and events."""
        os.makedirs(directory, exist_ok=True)
        self.watch.write(os.path.join(directory, "events.jsonl"))
        for node in self.lab.hosts:
            if os.path.exists(self.lab.log(node)):
                shutil.copy(self.lab.log(node), directory)


def parser(description, experiments):
    """Returns the parser of a script with experiments; the script adds options of its own."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(experiments)}; default: all")
    found.add_argument("--netlab", required=True)
    found.add_argument("--binary", required=True)
    return found


def parse(parser, experiments):
    """Parses the command line. Ends the script if it names an experiment that there is not."""
    parser.add_argument("--slack", type=float, default=1.0,
                        help="factor by which every time bound is multiplied (%(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="copy the agents' logs and events to DIR")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.experiments if name not in experiments]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(experiments)}")
    arguments.experiments = arguments.experiments or list(experiments)
    return arguments


def run(bed):
    """Runs the experiments that the command line names. Returns the exit status."""
    broken, reports = True, {}
    # SIGTERM takes the lab down, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bed.begin()
        for name in bed.arguments.experiments:
            print(f"--- {name}: {bed.experiments[name].__doc__.splitlines()[0]}", flush=True)
            reports[name] = bed.experiment(name)
        broken = False
    except (Failed, subprocess.TimeoutExpired) as error:
        bed.missed.append(str(error))
        print(f"FAILED: {error}", file=sys.stderr)
    finally:
        bed.watch.close()
        if bed.arguments.keep and bed.is_up:
            bed.keep(bed.arguments.keep)
        bed.end(broken)
    bed.table()
    for missed in bed.missed:
        print(f"MISSED: {missed}", flush=True)
    print(json.dumps({"experiments": reports, "missed": bed.missed}), flush=True)
    return 1 if bed.missed else 0
