#!/usr/bin/env python3
"""The pods of a rendered overlay under podman: as their templates say, with what Kubernetes does around
them (ordinals, volumes, Secrets, probes) done here. A file in and out, a pod killed, read again, all
stopped in order.

    k8s/run.py --bin BIN --base ROOT.tar --work DIR RENDERED.yaml      (root; images and containers live in DIR alone)

What is done here instead of by Kubernetes, and so is not shown by this: scheduling, spread and disruption
budgets, network policies, DNS (fixed addresses by hostAliases), volume claims (folders), preStop.
"""

import argparse
import base64
import copy
import hashlib
import http.client
import json
import os
import pathlib
import resource
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time

import yaml

UID = 10001
# Drawn, so that two runs on one machine do not meet.
SUBNET = f"10.89.{20 + secrets.randbelow(200)}"
PATIENCE = 180


def say(text):
    print(text, file=sys.stderr, flush=True)


class Podman:
    """podman with images, containers and settings of its own."""

    def __init__(self, work, runroot):
        self.work = work
        # crun refuses machines with both versions of control groups.
        runtime = "runc" if shutil.which("runc") else "crun"
        conf = f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        conf += '[containers]\nlog_driver = "k8s-file"\n'
        (work / "build.conf").write_text(conf)
        # Pods get not more than this process may have: without CAP_SYS_RESOURCE what podman would set is refused.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)
        ulimits = f'"nofile={files[0]}:{files[1]}", "nproc=4096:4096"'
        (work / "run.conf").write_text(conf + f"default_ulimits = [{ulimits}]\n")
        self.env = dict(os.environ, TMPDIR=str(work))
        self.base = ["podman", "--root", str(work / "storage"), "--runroot", str(runroot),
                     "--tmpdir", str(work / "tmp"), "--network-config-dir", str(work / "net")]
        self.network = "dfs-" + secrets.token_hex(3)

    def __call__(self, *arguments, stdin=None, check=True):
        conf = self.work / ("build.conf" if arguments[0] == "build" else "run.conf")
        done = subprocess.run([*self.base, *arguments], input=stdin, env=self.env | {"CONTAINERS_CONF": str(conf)},
                              capture_output=True)
        if check and done.returncode != 0:
            raise SystemExit(f"podman {' '.join(arguments)}: {done.stderr.decode()[-2000:]}")
        return done

    def remove_everything(self):
        self("pod", "rm", "-f", "-a", "-t", "0", check=False)
        self("rm", "-f", "-a", "-t", "0", check=False)
        self("network", "rm", "-f", self.network, check=False)
        self("rmi", "-f", "-a", check=False)


class Cluster:
    def __init__(self, podman, documents, keys, work):
        self.podman, self.work = podman, work
        self.documents = documents
        self.secrets = {(d["metadata"]["namespace"], d["metadata"]["name"]): d["data"] for d in keys}
        self.settings = {d["metadata"]["name"]: d for d in documents if d["kind"] == "ConfigMap"}
        self.addresses = {}
        self.probes = {}
        for document in documents:
            if document["kind"] == "StatefulSet":
                for ordinal in range(document["spec"]["replicas"]):
                    name = f"{document['metadata']['name']}-{ordinal}"
                    self.addresses[name] = (f"{SUBNET}.{10 + len(self.addresses)}",
                                            f"{name}.{document['spec']['serviceName']}.dfs.svc")

    def secret_folder(self, namespace, name, pod):
        """As the kubelet mounts it for a pod with fsGroup: root's, mode 0440, group fsGroup."""
        folder = self.work / "secrets" / pod / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in self.secrets[namespace, name].items():
            file = folder / key
            file.write_bytes(base64.b64decode(value))
            os.chown(file, 0, UID)
            file.chmod(0o440)
        return folder

    def pod(self, template, name, namespace, labels):
        """One pod as the controller makes it of a template, with volumes that podman knows."""
        spec = copy.deepcopy(template)
        container = spec["containers"][0]
        volumes = []
        claims = {m["name"] for m in container["volumeMounts"]} - {v["name"] for v in spec["volumes"]}
        for mount in container["volumeMounts"]:
            key = mount.pop("subPath", None) or mount.pop("subPathExpr", "").replace("$(DFS_ID)", name) or None
            volume = next((v for v in spec["volumes"] if v["name"] == mount["name"]), None)
            if mount["name"] in claims:
                path, kind = self.work / "data" / name, "Directory"
                path.mkdir(parents=True, exist_ok=True)
                os.chown(path, UID, UID)
            elif "emptyDir" in volume:
                path, kind = self.work / "empty" / name, "Directory"
                path.mkdir(parents=True, exist_ok=True)
                os.chown(path, UID, UID)
            else:
                path, kind = self.secret_folder(namespace, volume["secret"]["secretName"], name), "Directory"
                if key:
                    path, kind = path / key, "File"
            mount["name"] = f"v{len(volumes)}"
            volumes.append({"name": mount["name"], "hostPath": {"path": str(path), "type": kind}})
        spec["volumes"] = volumes
        for variable in container.get("env", []):
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            if field:
                variable.pop("valueFrom")
                variable["value"] = {"metadata.name": name, "spec.nodeName": f"node-{name}"}[field]
            variable["value"] = variable["value"].replace("$(DFS_ID)", name)
        # Probes are asked from here: podman would run curl in the container. And it would publish its ports.
        self.probes[name] = {p: container.pop(p)["httpGet"] for p in ("startupProbe", "livenessProbe", "readinessProbe")
                             if p in container}
        self.probes[name]["ports"] = {p["name"]: p["containerPort"] for p in container.pop("ports", [])}
        spec["hostAliases"] = [{"ip": ip, "hostnames": [host]} for ip, host in self.addresses.values()]
        container["image"] = "localhost/" + container["image"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}

    def play(self, pod, ip):
        used = [self.settings[s["configMapRef"]["name"]] for s in pod["spec"]["containers"][0].get("envFrom", [])]
        text = yaml.safe_dump_all([*used, pod]).encode()
        self.podman("play", "kube", "--network", self.podman.network, "--ip", ip, "-", stdin=text)

    def start(self):
        for document in self.documents:
            if document["kind"] != "StatefulSet":
                continue
            template = document["spec"]["template"]
            for ordinal in range(document["spec"]["replicas"]):
                name = f"{document['metadata']['name']}-{ordinal}"
                self.play(self.pod(template["spec"], name, "dfs", template["metadata"]["labels"]), self.addresses[name][0])

    def ask(self, name, probe):
        """As the kubelet: HTTPS to the pod's address, the certificate unchecked, 200 to 399 is yes."""
        get = self.probes[name][probe]
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["http/1.1"])
        assert get["scheme"] == "HTTPS"
        try:
            connection = http.client.HTTPSConnection(self.addresses[name][0], self.probes[name]["ports"][get["port"]],
                                                     timeout=5, context=context)
            connection.request("GET", get["path"])
            answer = connection.getresponse()
            return 200 <= answer.status < 400, answer.read().decode()
        except OSError as error:
            return False, str(error)

    def wait_ready(self, names):
        deadline = time.monotonic() + PATIENCE
        while True:
            waiting = {n: self.ask(n, "readinessProbe") for n in names}
            waiting = {n: why for n, (ready, why) in waiting.items() if not ready}
            if not waiting:
                return
            if time.monotonic() > deadline:
                for name in waiting:
                    logs = self.podman("logs", "--tail", "5", self.container(name), check=False)
                    say(f"-- {name}\n{logs.stderr.decode()}{logs.stdout.decode()}")
                raise SystemExit(f"not ready after {PATIENCE} s: {waiting}")
            time.sleep(0.5)

    def container(self, name):
        kind = name.rsplit("-", 1)[0]
        return f"{name}-" + {"metadata": "metadata-server", "chunk": "chunk-server"}.get(kind, name)

    def dfsctl(self, *arguments, stdin=None):
        return self.podman("exec", "-i", "dfsctl-dfsctl", "dfsctl", *arguments, stdin=stdin).stdout


def images(podman, binaries, base, work):
    podman("import", str(base), "docker.io/library/debian:bookworm-slim")
    dockerfile = pathlib.Path("docker/Dockerfile").resolve()
    for target in ("metadata-server", "chunk-server", "dfsctl"):
        podman("build", "-q", "-f", str(dockerfile), "--build-arg", "BINARIES=prebuilt",
               "--build-arg", "BASE=docker.io/library/debian:bookworm-slim", "--target", target, "--format", "docker",
               "-t", f"localhost/distribute/{target}:0.1.0", str(binaries.resolve()))
        say(f"image {target}")


def digest(data):
    return hashlib.sha256(data).hexdigest()


def walk(cluster, podman, client):
    say("== Pods started as their templates say")
    cluster.start()
    names = list(cluster.addresses)
    cluster.wait_ready(names)
    for name in names:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            ok, why = cluster.ask(name, probe)
            assert ok, f"{name} {probe}: {why}"
    say(f"{len(names)} pods ready; startup, liveness and readiness probes answer over HTTPS")

    pod = cluster.pod(client["spec"], "dfsctl", "dfs-client", client["metadata"]["labels"])
    cluster.play(pod, f"{SUBNET}.9")
    say("== A file in, and out again")
    data = secrets.token_bytes(20_000_000)
    cluster.dfsctl("bucket", "create", "demo")
    cluster.dfsctl("put", "-", "dfs://demo/file", stdin=data)
    assert digest(cluster.dfsctl("cat", "dfs://demo/file")) == digest(data), "the file came back different"
    say(f"sha256 {digest(data)}")

    say("== chunk-1 and metadata-0 killed, the file read again")
    for name in ("chunk-1", "metadata-0"):
        podman("kill", cluster.container(name))
    assert digest(cluster.dfsctl("cat", "dfs://demo/file")) == digest(data), "the file came back different"
    for name in ("chunk-1", "metadata-0"):
        podman("start", cluster.container(name), check=False)
    cluster.wait_ready(names)
    nodes = json.loads(cluster.dfsctl("--output", "json", "cluster", "status"))
    say(f"all ready again: {json.dumps(nodes)[:200]}..")

    say("== What a pod may do")
    for name in names:
        container = cluster.container(name)
        status = podman("exec", container, "cat", "/proc/1/status", check=False).stdout.decode()
        ids = podman("exec", container, "id").stdout.decode()
        assert f"uid={UID}" in ids, ids
        assert "CapEff:\t0000000000000000" in status, f"{name}: {status}"
        assert "NoNewPrivs:\t1" in status, f"{name} may gain privileges"
        assert podman("exec", container, "sh", "-c", "echo x > /etc/x", check=False).returncode != 0, "root is writable"
        listing = podman("exec", container, "ls", "/etc/dfs").stdout.decode().split()
        assert listing == ["ca.pem", "cert.pem", "key.pem"], listing
    say("user 10001, no capabilities, no new privileges, read-only root, its own key alone")

    say("== Stopped in order")
    for name in reversed(names):
        podman("stop", "-t", "60", cluster.container(name))
        code = podman("inspect", "-f", "{{.State.ExitCode}}", cluster.container(name)).stdout.decode().strip()
        assert code == "0", f"{name} ended with {code}"
    say("each server ended with 0 at SIGTERM")


def give_up(number, _frame):
    # What was started is removed on the way out, which is not to be interrupted.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--base", required=True, type=pathlib.Path, help="tar of the base image's root")
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--runroot", required=True, type=pathlib.Path, help="a folder with a path of at most 50 characters")
    parser.add_argument("rendered", type=pathlib.Path)
    args = parser.parse_args()
    podman = Podman(args.work, args.runroot)
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, give_up)
    try:
        images(podman, args.bin, args.base, args.work)
        podman("network", "create", "--subnet", f"{SUBNET}.0/24", podman.network)
        chunk_servers = 3
        made = subprocess.run(["scripts/k8s-secrets.sh", "init", str(args.work / "keys"), str(chunk_servers)], check=True,
                              env=dict(os.environ, DFSCTL=str(args.bin / "dfsctl")), capture_output=True)
        keys = [d for d in yaml.safe_load_all(made.stdout) if d]
        documents = [d for d in yaml.safe_load_all(args.rendered.read_text()) if d]
        client = next(d for d in yaml.safe_load_all(pathlib.Path("k8s/client/pod.yaml").read_text()) if d["kind"] == "Pod")
        walk(Cluster(podman, documents, keys, args.work), podman, client)
    finally:
        podman.remove_everything()


if __name__ == "__main__":
    main()
