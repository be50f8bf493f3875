#!/usr/bin/env python3
"""A real Kubernetes cluster inside network namespaces of this machine, with the service proxy of your choice.

    cluster.py up --proxy upstream|BINARY [--nodes N] [--family dual|ipv4]
    cluster.py down | status
    cluster.py proxy restart|stop|start|log [NODE ...]
    cluster.py restart-apiserver
    cluster.py exec NODE|cp COMMAND ...      runs a command inside a node (or beside the control plane)

One namespace, kp-fabric, routes between kp-cp (etcd, API server, controllers, the tests) and kp-node1..N.
Nothing is connected to the machine's own network. KUBE_PROXY_CONFORMANCE_CACHE names the cache directory that build filled.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("KUBE_PROXY_CONFORMANCE_CACHE", os.path.expanduser("~/.cache/kube-proxy-conformance"))
BIN, RUN = f"{CACHE}/bin", f"{CACHE}/run"
KUBECONFIG = f"{RUN}/kubeconfig"

FABRIC4, FABRIC6 = "10.89.0.1", "fd00:10:89::1"
CP4, CP6 = "10.88.0.2", "fd00:10:88::2"  # tests tell a client outside the cluster by its /16 and /64
CLUSTER_CIDR = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICE_CIDR = ("10.96.0.0/16", "fd00:10:96::/112")
DNS_IP = "10.96.0.10"
CGROUPS = "/sys/fs/cgroup"


def sh(*args, check=True, **kw):
    return subprocess.run(args, check=check, text=True, **kw)


def out(*args, **kw):
    return sh(*args, stdout=subprocess.PIPE, **kw).stdout


def kubectl(*args, **kw):
    return sh(*in_netns("kp-cp"), f"{BIN}/kubectl", "--kubeconfig", KUBECONFIG, *args, **kw)


def in_netns(name):
    return ["nsenter", f"--net=/run/netns/{name}"]


def node_addresses(index):
    return f"10.89.0.{10 + index}", f"fd00:10:89::{10 + index:x}"


def of_family(state, pair):
    """The IPv4 and IPv6 values that the cluster uses, with a comma between."""
    return ",".join(pair if state.data["family"] == "dual" else pair[:1])


def wait_for(what, test, seconds=120, every=0.5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if test():
            return
        time.sleep(every)
    raise SystemExit(f"timed out after {seconds} s: {what}")


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


class State:
    """What `up` made and `down` has to take away: run/state.json, written after every step."""

    def __init__(self):
        self.path = f"{RUN}/state.json"
        self.data = {"namespaces": [], "pids": {}, "sysctls": {}, "nodes": [], "proxy": "", "family": ""}
        if os.path.exists(self.path):
            with open(self.path) as f:
                self.data = json.load(f)

    def save(self):
        write(self.path, json.dumps(self.data, indent=1))

    def spawn(self, name, argv, log):
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "ab") as f:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, start_new_session=True)
        self.data["pids"][name] = [process.pid, start_time(process.pid)]
        self.save()
        return process


def start_time(pid):
    """Start time of a process in clock ticks, or None: tells it from a later one with the same id."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else int(fields[19])
    except OSError:
        return None


def alive(entry):
    return start_time(entry[0]) == entry[1]


# ---------------------------------------------------------------- network

def add_namespace(state, name, sysctls=()):
    sh("ip", "netns", "add", name)
    state.data["namespaces"].append(name)
    state.save()
    sh("ip", "-n", name, "link", "set", "lo", "up")
    sh(*in_netns(name), "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
       "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", *sysctls)


def join_fabric(name, link, v4, v6):
    """Connects a namespace to the fabric by a veth; both ends know only host routes (there is no bridge)."""
    sh("ip", "link", "add", link, "netns", "kp-fabric", "type", "veth", "peer", "name", "eth0", "netns", name)
    fabric, peer = ["ip", "-n", "kp-fabric"], ["ip", "-n", name]
    for args in (
        [*fabric, "link", "set", link, "up"],
        [*fabric, "addr", "add", f"{FABRIC4}/32", "dev", link],
        [*fabric, "addr", "add", f"{FABRIC6}/128", "dev", link, "nodad"],
        [*peer, "link", "set", "eth0", "up"],
        [*peer, "addr", "add", f"{v4}/32", "dev", "eth0"],
        [*peer, "addr", "add", f"{v6}/128", "dev", "eth0", "nodad"],
        [*fabric, "route", "add", f"{v4}/32", "dev", link],
        [*fabric, "-6", "route", "replace", f"{v6}/128", "dev", link],
        [*peer, "route", "add", f"{FABRIC4}/32", "dev", "eth0"],
        [*peer, "route", "add", "default", "via", FABRIC4, "dev", "eth0"],
        [*peer, "-6", "route", "replace", f"{FABRIC6}/128", "dev", "eth0"],
        [*peer, "-6", "route", "add", "default", "via", FABRIC6, "dev", "eth0"],
    ):
        sh(*args)


def make_network(state, nodes):
    forward = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
    add_namespace(state, "kp-fabric", forward)
    add_namespace(state, "kp-cp")
    join_fabric("kp-cp", "cp", CP4, CP6)
    for i in range(1, nodes + 1):
        add_namespace(state, f"kp-node{i}", forward)
        join_fabric(f"kp-node{i}", f"node{i}", *node_addresses(i))


# ---------------------------------------------------------------- control plane

USERS = {  # token file: token -> user, groups
    "admin": ("kubernetes-admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
}


def make_pki():
    pki = f"{RUN}/pki"
    os.makedirs(pki)
    quiet = {"stderr": subprocess.DEVNULL, "cwd": pki}
    sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=kp-ca",
       "-keyout", "ca.key", "-out", "ca.crt", **quiet)
    write(f"{pki}/san", "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
          "DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:fd00:10:96::1,"
          f"IP:{CP4},IP:{CP6}\n")
    sh("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kube-apiserver",
       "-keyout", "apiserver.key", "-out", "apiserver.csr", **quiet)
    sh("openssl", "x509", "-req", "-in", "apiserver.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
       "-days", "30", "-extfile", "san", "-out", "apiserver.crt", **quiet)
    sh("openssl", "genrsa", "-out", "sa.key", "2048", **quiet)
    sh("openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub", **quiet)


def make_kubeconfig(path, token):
    write(path, json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "kp",
        "clusters": [{"name": "kp", "cluster": {"server": f"https://{CP4}:6443",
                                                "certificate-authority": f"{RUN}/pki/ca.crt"}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "kp", "context": {"cluster": "kp", "user": "user"}}],
    }, indent=1))


def start_control_plane(state, nodes):
    make_pki()
    masks = ["--node-cidr-mask-size=24"]
    if state.data["family"] == "dual":
        masks = ["--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64"]
    lines = [f'{token},{user},{user},"{groups}"' for token, (user, groups) in USERS.items()]
    lines += [f'node{i},system:node:node{i},node{i},"system:nodes"' for i in range(1, nodes + 1)]
    write(f"{RUN}/tokens.csv", "\n".join(lines) + "\n")
    make_kubeconfig(KUBECONFIG, "admin")
    for name in ("kcm", "scheduler"):
        make_kubeconfig(f"{RUN}/{name}.kubeconfig", name)
    pki, log, cp = f"{RUN}/pki", f"{RUN}/log", in_netns("kp-cp")
    state.spawn("etcd", [*cp, f"{BIN}/etcd", "--data-dir", f"{RUN}/etcd", "--unsafe-no-fsync",
                         "--log-level=warn"], f"{log}/etcd.log")
    start_apiserver(state)
    wait_for("API server ready", lambda: kubectl("get", "--raw", "/readyz", check=False,
             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0)
    state.spawn("kcm", [
        *cp, f"{BIN}/kube-controller-manager", "--kubeconfig", f"{RUN}/kcm.kubeconfig", "--leader-elect=false",
        "--use-service-account-credentials", "--service-account-private-key-file", f"{pki}/sa.key",
        "--root-ca-file", f"{pki}/ca.crt", "--cluster-signing-cert-file", f"{pki}/ca.crt",
        "--cluster-signing-key-file", f"{pki}/ca.key", "--allocate-node-cidrs",
        "--cluster-cidr", of_family(state, CLUSTER_CIDR),
        "--service-cluster-ip-range", of_family(state, SERVICE_CIDR), *masks], f"{log}/kcm.log")
    state.spawn("scheduler", [*cp, f"{BIN}/kube-scheduler", "--kubeconfig", f"{RUN}/scheduler.kubeconfig",
                              "--leader-elect=false"], f"{log}/scheduler.log")


def start_apiserver(state):
    pki = f"{RUN}/pki"
    return state.spawn("apiserver", [
        *in_netns("kp-cp"), f"{BIN}/kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0", f"--advertise-address={CP4}", "--secure-port=6443",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt", f"--token-auth-file={RUN}/tokens.csv",
        f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-cluster-ip-range={of_family(state, SERVICE_CIDR)}", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP"], f"{RUN}/log/apiserver.log")


# ---------------------------------------------------------------- nodes

def containerd_config(node_dir):
    return f"""version = 3
root = "{node_dir}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{image('pause')}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{BIN}"]
  conf_dir = "{node_dir}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def image(name):
    with open(f"{CACHE}/images/names") as f:
        found = [n for n in f.read().split() if n.split("/")[-1].split(":")[0] == name]
    return found[-1]


def kubelet_config(node_dir, name):
    return json.dumps({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/kp/{name}", "failCgroupV1": False, "failSwapOn": False,
        "clusterDNS": [DNS_IP], "clusterDomain": "cluster.local", "resolvConf": "/etc/resolv.conf",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False, "podLogsDir": f"{node_dir}/log/pods",
    }, indent=1)


def proxy_config(state, node_dir):
    return json.dumps({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "clientConnection": {"kubeconfig": f"{node_dir}/proxy.kubeconfig"},
        "clusterCIDR": of_family(state, CLUSTER_CIDR), "healthzBindAddress": "0.0.0.0:10256",
        "metricsBindAddress": "0.0.0.0:10249",
        # Table sizes belong to the machine, not to a namespace; the timeouts keep kube-proxy's defaults.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }, indent=1)


def start_node(state, index, proxy):
    name = f"node{index}"
    node_dir = f"{RUN}/nodes/{name}"
    v4, v6 = node_addresses(index)
    write(f"{node_dir}/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{v4} {name}\n{v6} {name}\n")
    write(f"{node_dir}/etc/resolv.conf", f"nameserver {FABRIC4}\n")
    write(f"{node_dir}/etc/hostname", f"{name}\n")
    write(f"{node_dir}/containerd.toml", containerd_config(node_dir))
    write(f"{node_dir}/kubelet.json", kubelet_config(node_dir, name))
    write(f"{node_dir}/proxy.json", proxy_config(state, node_dir))
    make_kubeconfig(f"{node_dir}/kubelet.kubeconfig", name)
    make_kubeconfig(f"{node_dir}/proxy.kubeconfig", "proxy")
    os.makedirs(f"{node_dir}/cni", exist_ok=True)
    for controller in os.listdir(CGROUPS):
        if controller == "unified":
            continue
        os.makedirs(f"{CGROUPS}/{controller}/kp/{name}", exist_ok=True)
        if controller == "cpuset":
            for group in ("kp", f"kp/{name}"):
                for key in ("cpuset.cpus", "cpuset.mems"):
                    with open(f"{CGROUPS}/cpuset/{key}") as f:
                        write(f"{CGROUPS}/cpuset/{group}/{key}", f.read())
    zone = f"zone-{'abc'[(index - 1) % 3]}"
    services = {
        "containerd": [f"{BIN}/containerd", "--config", f"{node_dir}/containerd.toml"],
        "kubelet": [f"{BIN}/kubelet", "--config", f"{node_dir}/kubelet.json",
                    "--kubeconfig", f"{node_dir}/kubelet.kubeconfig", "--root-dir", f"{node_dir}/kubelet",
                    "--cert-dir", f"{node_dir}/kubelet-pki", "--hostname-override", name,
                    "--node-ip", of_family(state, (v4, v6)), "--node-labels", f"topology.kubernetes.io/zone={zone}"],
        "proxy": [proxy, "--config", f"{node_dir}/proxy.json", "--hostname-override", name],
    }
    write(f"{node_dir}/node.json", json.dumps({"name": name, "services": services}, indent=1))
    write(f"{node_dir}/kubelet.stop", "")  # until the images are there
    write(f"{node_dir}/proxy.stop", "")  # until the node is registered, as for a DaemonSet
    env = ["env", f"PATH={BIN}:{os.environ['PATH']}"]
    state.spawn(name, [*in_netns(f"kp-{name}"), *env, "unshare", "--mount", "--pid", "--fork", "--uts", "--ipc",
                       "--kill-child=SIGKILL", sys.executable, f"{HERE}/node.py", node_dir],
                f"{RUN}/log/{name}.log")


def node_init(state, name):
    """The process id, on this machine, of the node's first process."""
    parent = state.data["pids"][name][0]
    with open(f"/proc/{parent}/task/{parent}/children") as f:
        return f.read().split()[0]


def in_node(state, name):
    return ["nsenter", "-t", node_init(state, name), "-m", "-n", "-p", "-u", "-i",
            "env", f"PATH={BIN}:{os.environ['PATH']}"]


def import_images(state, names):
    """Loads the images into every node's containerd, then lets its kubelet start."""
    running = []
    for name in names:
        wait_for(f"init of {name}", lambda: os.path.exists(f"{RUN}/nodes/{name}/containerd.pid"))
        wait_for(f"containerd on {name}", lambda: sh(
            *in_node(state, name), "ctr", "version", check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0)
        running.append((name, subprocess.Popen([
            *in_node(state, name), "ctr", "-n", "k8s.io", "images", "import", f"{CACHE}/images/images.tar"],
            stdout=subprocess.DEVNULL)))
    for name, process in running:
        if process.wait() != 0:
            raise SystemExit(f"{name}: cannot import the images")
        os.unlink(f"{RUN}/nodes/{name}/kubelet.stop")


def connect_pods(state, names):
    """Gives each node its CNI configuration and the fabric its routes, from the podCIDRs the cluster chose."""
    for index, name in enumerate(names, 1):
        cidrs = []

        def assigned():
            text = kubectl("get", "node", name, "-o", "jsonpath={.spec.podCIDRs[*]}", check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            cidrs[:] = text.split()
            return len(cidrs) == (2 if state.data["family"] == "dual" else 1)
        wait_for(f"podCIDRs of {name}", assigned)
        os.unlink(f"{RUN}/nodes/{name}/proxy.stop")
        v4, v6 = node_addresses(index)
        for cidr, via in zip(cidrs, (v4, v6)):
            sh("ip", "-n", "kp-fabric", "route", "add", cidr, "via", via, "dev", name, "onlink")
        write(f"{RUN}/nodes/{name}/cni/10-kp.conflist", json.dumps({
            "cniVersion": "1.0.0", "name": "kp", "plugins": [
                {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": {
                    "type": "host-local", "dataDir": "/run/cni-ipam",
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}][:len(cidrs)],
                    "ranges": [[{"subnet": c}] for c in cidrs]}},
                {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}},
            ]}, indent=1))


# ---------------------------------------------------------------- commands

def up(args):
    if os.path.exists(f"{RUN}/state.json"):
        raise SystemExit("a cluster is there already: cluster.py down first")
    proxy = f"{BIN}/kube-proxy" if args.proxy == "upstream" else os.path.abspath(args.proxy)
    if not os.access(proxy, os.X_OK):
        raise SystemExit(f"not a program: {proxy}")
    start = time.monotonic()
    shutil.rmtree(RUN, ignore_errors=True)
    state = State()
    names = [f"node{i}" for i in range(1, args.nodes + 1)]
    state.data.update(nodes=names, proxy=proxy, family=args.family)
    # kubelet changes these for the whole machine; `down` puts them back.
    for key in ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"):
        with open(f"/proc/sys/{key}") as f:
            state.data["sysctls"][key] = f.read().strip()
    state.save()
    make_network(state, args.nodes)
    start_control_plane(state, args.nodes)
    print(f"control plane ready after {time.monotonic() - start:.0f} s", flush=True)
    for i in range(1, args.nodes + 1):
        start_node(state, i, proxy)
    import_images(state, names)
    print(f"images imported after {time.monotonic() - start:.0f} s", flush=True)
    connect_pods(state, names)
    kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s", stdout=subprocess.DEVNULL)
    print(f"{len(names)} nodes ready after {time.monotonic() - start:.0f} s", flush=True)
    deploy("coredns.yaml", "deployment/coredns", {"DNS_IP": DNS_IP})
    deploy("standins.yaml", "daemonset/kube-proxy", {"PAUSE": image("pause")})
    state.spawn("standins", [*in_netns("kp-cp"), sys.executable, f"{HERE}/standins.py", f"https://{CP4}:6443", "admin",
                             *(f"{n}={','.join(node_addresses(i))}" for i, n in enumerate(names, 1))],
                f"{RUN}/log/standins.log")
    print(f"cluster up after {time.monotonic() - start:.0f} s; proxy {proxy}\nKUBECONFIG={KUBECONFIG}")


def deploy(manifest, workload, values):
    with open(f"{HERE}/{manifest}") as f:
        text = f.read()
    for key, value in values.items():
        text = text.replace(key, value)
    kubectl("apply", "-f", "-", input=text, stdout=subprocess.DEVNULL)
    if kubectl("-n", "kube-system", "rollout", "status", workload, "--timeout=60s", check=False,
               stdout=subprocess.DEVNULL).returncode != 0:
        print(f"warning: {workload} does not get ready (CoreDNS needs a proxy that works)", flush=True)


def down(_args=None):
    state = State()
    for entry in reversed(list(state.data["pids"].values())):
        if alive(entry):
            os.kill(entry[0], signal.SIGKILL)  # a node's unshare takes the whole pid namespace with it
    entries = state.data["pids"].values()
    wait_for("processes gone", lambda: not any(alive(e) for e in entries), 30, 0.1)
    for name in state.data["namespaces"]:
        sh("ip", "netns", "del", name, check=False)
    remove_cgroups()
    for key, value in state.data["sysctls"].items():
        write(f"/proc/sys/{key}", value)
    if os.path.exists(RUN):
        keep = f"{CACHE}/last-logs"
        shutil.rmtree(keep, ignore_errors=True)
        os.makedirs(keep)
        for source, target in [(f"{RUN}/log", "control-plane")] + [
                (f"{RUN}/nodes/{n}/log", n) for n in state.data["nodes"]]:
            if os.path.isdir(source):
                shutil.copytree(source, f"{keep}/{target}", symlinks=True,
                                ignore=shutil.ignore_patterns("pods", "containers"))
        shutil.rmtree(RUN, ignore_errors=True)
    print(f"cluster down; logs of its components in {CACHE}/last-logs")


def remove_cgroups():
    for _ in range(50):
        left = False
        for controller in os.listdir(CGROUPS):
            for path, _dirs, _files in os.walk(f"{CGROUPS}/{controller}/kp", topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    left = True
        if not left:
            return
        time.sleep(0.2)
    print("some cgroups below kp/ are still in use", file=sys.stderr)


def status(_args):
    state = State()
    if not state.data["pids"]:
        raise SystemExit("no cluster")
    for name, entry in state.data["pids"].items():
        print(f"{name:10} {'running' if alive(entry) else 'DEAD'} pid {entry[0]}")
    print(f"proxy      {state.data['proxy']}\nKUBECONFIG={KUBECONFIG}", flush=True)
    kubectl("get", "nodes", "-o", "wide", check=False)


def proxy(args):
    state = State()
    for name in args.names or state.data["nodes"]:
        node_dir = f"{RUN}/nodes/{name}"
        if args.action == "log":
            sh("tail", "-n", "200", f"{node_dir}/log/proxy.log")
        elif args.action == "restart":
            with open(f"{node_dir}/proxy.pid") as f:
                sh(*in_node(state, name), "kill", f.read())
        elif args.action == "stop":
            write(f"{node_dir}/proxy.stop", "")
        elif os.path.exists(f"{node_dir}/proxy.stop"):
            os.unlink(f"{node_dir}/proxy.stop")


def restart_apiserver(_args):
    state = State()
    entry = state.data["pids"]["apiserver"]
    os.kill(entry[0], signal.SIGTERM)
    wait_for("end of the API server", lambda: not alive(entry), 90, 0.2)
    start_apiserver(state)


def execute(args):
    prefix = in_netns("kp-cp") + ["env", f"KUBECONFIG={KUBECONFIG}", f"PATH={BIN}:{os.environ['PATH']}"] \
        if args.node == "cp" else in_node(State(), args.node)
    sys.exit(sh(*prefix, *args.command, check=False).returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("up")
    p.add_argument("--proxy", required=True, help="upstream, or the path of a program")
    p.add_argument("--nodes", type=int, default=3)
    p.add_argument("--family", choices=["dual", "ipv4"], default="dual", help="address families (default dual)")
    p.set_defaults(do=up)
    commands.add_parser("down").set_defaults(do=down)
    commands.add_parser("status").set_defaults(do=status)
    p = commands.add_parser("proxy")
    p.add_argument("action", choices=["restart", "stop", "start", "log"])
    p.add_argument("names", nargs="*", metavar="NODE")
    p.set_defaults(do=proxy)
    commands.add_parser("restart-apiserver").set_defaults(do=restart_apiserver)
    p = commands.add_parser("exec")
    p.add_argument("node")
    p.add_argument("command", nargs=argparse.REMAINDER)
    p.set_defaults(do=execute)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
