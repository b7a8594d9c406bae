#!/usr/bin/env python3
"""The pods of ops/kubernetes, without a cluster: three agents with the manifest's own command line and environment find
each other by a name that a DNS server answers as a headless Service does; one is deleted, one is killed, and each comes
back with another address and its volume.

A pod is a network namespace and an empty root with the program and the libraries that it is linked to. The user, the
groups, the files of the Secret and the rights of the volume are those that the kubelet makes of the manifest. Needs root,
iproute2, openssl and PyYAML. Exit status 0 only if every step succeeded.
"""
import argparse
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from bed import PATIENCE, Failed

MANIFEST = pathlib.Path(__file__).resolve().parents[2] / "ops/kubernetes/gossipmonger.yaml"
NETWORK = "10.97.0"
SEARCH = "prod.svc.cluster.local"
CLONE_NEWNET = 0x40000000
PR_SET_NO_NEW_PRIVS = 38
# What the kubelet puts into each pod for a Service that is named gossipmonger, if service links are not turned off.
SERVICE_LINKS = {
    "GOSSIPMONGER_SERVICE_HOST": "10.96.0.7", "GOSSIPMONGER_SERVICE_PORT": "7101",
    "GOSSIPMONGER_SERVICE_PORT_GOSSIP": "7101", "GOSSIPMONGER_PORT": "udp://10.96.0.7:7101",
    "GOSSIPMONGER_PORT_7101_UDP": "udp://10.96.0.7:7101", "GOSSIPMONGER_PORT_7101_UDP_PROTO": "udp",
    "GOSSIPMONGER_PORT_7101_UDP_PORT": "7101", "GOSSIPMONGER_PORT_7101_UDP_ADDR": "10.96.0.7",
}
libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter(namespace):
    with open(f"/run/netns/{namespace}") as file:
        checked(libc.setns(file.fileno(), CLONE_NEWNET))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


# --- DNS

def labels(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answer(question, records):
    """The answer to one question: the A records of the name, or that there is no such name."""
    end = question.index(b"\0", 12) + 5
    asked, kind = question[12:end - 4].lower(), struct.unpack("!H", question[end - 4:end - 2])[0]
    known = {labels(name): addresses for name, addresses in records.items()}
    addresses = known.get(asked, []) if kind == 1 else []
    code = 0 if asked in known else 3
    head = question[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
    rows = (b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(address) for address in addresses)
    return head + question[12:end] + b"".join(rows)


def serve_names(file, address):
    """Answers from the lines NAME ADDRESS... of a file, as it is at each question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            question, client = server.recvfrom(1500)
            rows = (line.split() for line in pathlib.Path(file).read_text().splitlines())
            server.sendto(answer(question, {row[0]: row[1:] for row in rows}), client)


# --- pods

class Pods:
    def __init__(self, binary, manifest):
        import yaml  # of kubernetes-validate's environment, or Debian's python3-yaml
        documents = [one for one in yaml.safe_load_all(manifest.read_text()) if one]
        stateful = next(one for one in documents if one["kind"] == "StatefulSet")
        self.service = next(one for one in documents if one["kind"] == "Service")["metadata"]["name"]
        self.name, self.replicas = stateful["metadata"]["name"], stateful["spec"]["replicas"]
        self.spec = stateful["spec"]["template"]["spec"]
        self.container = self.spec["containers"][0]
        self.binary = os.path.abspath(binary)
        self.root = tempfile.mkdtemp(prefix="gossipmonger-pods-")
        self.lab = f"gm{os.getpid()}"
        self.addresses, self.running, self.namespaces, self.last = {}, {}, {}, 9
        self.names = os.path.join(self.root, "names")

    def pods(self):
        return [f"{self.name}-{ordinal}" for ordinal in range(self.replicas)]

    def up(self):
        self.switch = f"{self.lab}n"
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "cni0", "type", "bridge")
        run("ip", "-n", self.switch, "addr", "add", f"{NETWORK}.1/24", "dev", "cni0")
        for link in ("lo", "cni0"):
            run("ip", "-n", self.switch, "link", "set", link, "up")
        self.publish()
        server = [sys.executable, __file__, "--serve-names", self.names, "--address", f"{NETWORK}.1"]
        self.dns = subprocess.Popen(server, preexec_fn=lambda: enter(self.switch))
        run(self.binary, "ca", "init", "--cluster", "demo", "--dir", os.path.join(self.root, "pki"))
        for pod in self.pods():
            self.make_root(pod)

    def publish(self):
        """The records of a headless Service with publishNotReadyAddresses: all pods, and each by its name."""
        rows = [[f"{self.service}.{SEARCH}", *self.addresses.values()]]
        rows += [[f"{pod}.{self.service}.{SEARCH}", address] for pod, address in self.addresses.items()]
        pathlib.Path(self.names + ".new").write_text("".join(" ".join(row) + "\n" for row in rows))
        os.replace(self.names + ".new", self.names)

    def of(self, pod, *path):
        return os.path.join(self.root, pod, *path)

    def make_root(self, pod):
        """The image, the Secret and the volume. Root owns all of it; the volume and the key have the pod's group."""
        group = self.spec["securityContext"]["fsGroup"]
        os.makedirs(self.of(pod))
        shutil.copy(self.binary, self.of(pod, "gossipmonger"))
        for line in run("ldd", self.binary).splitlines():
            library = next((word for word in line.split() if word.startswith("/")), None)
            if library:
                os.makedirs(os.path.dirname(self.of(pod) + library), exist_ok=True)
                shutil.copy(library, self.of(pod) + library)
        issued = self.of(pod + ".issued")
        run(self.binary, "cert", "issue", "--ca", os.path.join(self.root, "pki"), "--node", pod, "--datacenter", "eu",
            "--key-type", "p256", "--dir", issued)
        # cert-manager writes the key of an elliptic curve like this.
        run("openssl", "ec", "-in", os.path.join(issued, "node.key"), "-out", os.path.join(issued, "sec1.key"))
        tls = self.of(pod, "etc/gossipmonger/tls", pod)
        os.makedirs(tls)
        for source, file in (("node.pem", "tls.crt"), ("sec1.key", "tls.key"), ("roots.pem", "ca.crt")):
            shutil.copyfile(os.path.join(issued, source), os.path.join(tls, file))
            os.chown(os.path.join(tls, file), 0, group)
            os.chmod(os.path.join(tls, file), 0o440)
        pathlib.Path(self.of(pod, "etc/resolv.conf")).write_text(
            f"nameserver {NETWORK}.1\nsearch {SEARCH} svc.cluster.local cluster.local\noptions ndots:5\n")
        volume = self.of(pod, "var/lib/gossipmonger")
        os.makedirs(volume)
        os.chown(volume, 0, group)
        os.chmod(volume, 0o2775)

    def environment(self, pod):
        fields = {"metadata.name": pod, "status.podIP": self.addresses[pod]}
        own = {}
        for one in self.container["env"]:
            source = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            own[one["name"]] = fields[source] if source else one["value"]
        return own

    def start(self, pod):
        """A new sandbox with an address that no pod has had, and the container in it."""
        self.last += 1
        address = self.addresses[pod] = f"{NETWORK}.{self.last}"
        namespace = self.namespaces[pod] = f"{self.lab}p{self.last}"
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", f"v{self.last}", "netns", self.switch, "type", "veth", "peer", "name", "eth0", "netns",
            namespace)
        run("ip", "-n", self.switch, "link", "set", f"v{self.last}", "master", "cni0", "up")
        run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run("ip", "-n", namespace, "link", "set", link, "up")
        pathlib.Path(self.of(pod, "etc/hosts")).write_text(f"127.0.0.1 localhost\n{address} {pod}\n")
        self.publish()
        own, line = self.environment(pod), ["/gossipmonger"]
        for argument in self.container["args"]:
            for name, value in own.items():
                argument = argument.replace(f"$({name})", value)
            line.append(argument)
        context = self.spec["securityContext"]

        def become():
            enter(namespace)
            os.chroot(self.of(pod))
            os.chdir("/")
            os.setgroups([context["fsGroup"]])
            os.setgid(context["runAsGroup"])
            os.setuid(context["runAsUser"])
            checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))

        with open(self.log(pod), "ab") as log:
            self.running[pod] = subprocess.Popen(line, env={**SERVICE_LINKS, **own}, stdout=log, stderr=log,
                                                 preexec_fn=become)

    def delete(self, pod, by):
        """The end of a pod: its address is gone from the Service at once, its sandbox when its container has ended."""
        del self.addresses[pod]
        self.publish()
        agent = self.running.pop(pod)
        agent.send_signal(by)
        code = agent.wait(timeout=self.spec["terminationGracePeriodSeconds"])
        if code != (0 if by == signal.SIGTERM else -signal.SIGKILL):
            raise Failed(f"{pod} ends with {code}: {self.log_of(pod)}")
        run("ip", "netns", "del", self.namespaces.pop(pod))

    def log(self, pod):
        return self.of(pod + ".log")

    def log_of(self, pod):
        return pathlib.Path(self.log(pod)).read_text(errors="replace")

    def get(self, pod, path):
        """What the kubelet or a scraper gets: it verifies no certificate. Returns the status and the body."""
        url = f"https://{self.addresses[pod]}:{self.port('http')}{path}"
        done = subprocess.run([sys.executable, __file__, "--get", url], capture_output=True, text=True, timeout=60,
                              preexec_fn=lambda: enter(self.switch))
        status, _, body = done.stdout.partition("\n")
        return int(status or 0), body or done.stderr

    def port(self, name):
        return next(port["containerPort"] for port in self.container["ports"] if port["name"] == name)

    def probe(self, pod, kind):
        probe = self.container[kind]["httpGet"]
        if probe["scheme"] != "HTTPS":
            raise Failed(f"{kind} does not use HTTPS, and the agent speaks nothing else on this address")
        return self.get(pod, probe["path"])[0]

    def until(self, what, holds):
        deadline = time.monotonic() + PATIENCE
        while not holds():
            ended = [pod for pod, agent in self.running.items() if agent.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "".join(f"--- {pod}\n{self.log_of(pod)}" for pod in self.pods())
                why = f"ended: {ended}" if ended else f"not within {PATIENCE} s"
                raise Failed(f"{what}: {why}\n{logs}")
            time.sleep(0.2)

    def metric(self, pod, series):
        status, page = self.get(pod, "/metrics")
        found = (line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(series + " "))
        return float(next(found, "nan")) if status == 200 else float("nan")

    def all_live(self):
        series = 'gossipmonger_members{state="live",datacenter="eu"}'
        return all(self.metric(pod, series) == self.replicas for pod in self.running)

    def all_ready(self):
        return all(self.probe(pod, "readinessProbe") == 200 for pod in self.running)

    def down(self):
        for agent in self.running.values():
            agent.kill()
            agent.wait()
        if hasattr(self, "dns"):
            self.dns.kill()
            self.dns.wait()
        for namespace in (*self.namespaces.values(), self.switch):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        shutil.rmtree(self.root)


def confined(pods, pod):
    """The process has no user, group or capability that the manifest does not give it."""
    rows = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pods.running[pod].pid}/status").read_text()
                .splitlines() if ":\t" in line)
    context = pods.spec["securityContext"]
    wanted = {"Uid": str(context["runAsUser"]), "Gid": str(context["runAsGroup"]), "CapEff": "0" * 16, "NoNewPrivs": "1"}
    return all(rows[row].split()[0] == value for row, value in wanted.items())


def check(pods):
    first, second, third = pods.pods()
    for pod in pods.pods():
        pods.start(pod)
    pods.until("all pods have each other for live", pods.all_live)
    pods.until("all pods are ready", pods.all_ready)
    for pod in pods.pods():
        if (pods.probe(pod, "livenessProbe"), pods.probe(pod, "startupProbe")) != (200, 200):
            raise Failed(f"{pod} is ready and not alive")
        if not confined(pods, pod):
            raise Failed(f"{pod} has rights that the manifest does not give it")
        if pods.get(pod, "/v1/members")[0] not in (401, 403):
            raise Failed(f"{pod} answers the API to nobody in particular: {pods.get(pod, '/v1/members')}")
    print("three pods found each other by the headless Service; live, ready and confined")
    before = {pod: pods.metric(pod, "gossipmonger_generation") for pod in pods.pods()}
    for pod, by, word in ((second, signal.SIGTERM, "deleted"), (third, signal.SIGKILL, "killed")):
        old = pods.addresses[pod]
        pods.delete(pod, by)
        pods.until(f"{first} misses {pod}", lambda: pods.metric(
            first, 'gossipmonger_members{state="live",datacenter="eu"}') == pods.replicas - 1)
        pods.start(pod)
        pods.until(f"{pod} is back", lambda: pods.all_live() and pods.all_ready())
        if not pods.metric(pod, "gossipmonger_generation") > before[pod]:
            raise Failed(f"{pod} is back without a new generation")
        print(f"{pod} was {word} at {old} and is back at {pods.addresses[pod]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/gossipmonger")
    parser.add_argument("--manifest", type=pathlib.Path, default=MANIFEST)
    parser.add_argument("--serve-names", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--get", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_names:
        serve_names(options.serve_names, options.address)
    if options.get:
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(options.get, timeout=10, context=context) as got:
                print(got.status, got.read().decode(), sep="\n")
        except urllib.error.HTTPError as error:
            print(error.code, error.read().decode(), sep="\n")
        return
    if os.getuid() != 0:
        print("SKIPPED: the pods of ops/kubernetes (they need root)")
        return
    pods = Pods(options.binary, options.manifest)
    try:
        pods.up()
        check(pods)
    finally:
        pods.down()


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        print(f"FAILED: {failed}", file=sys.stderr)
        sys.exit(1)
