#!/usr/bin/env python3
"""Holds rendered manifests to what schemas cannot say: Pod Security `restricted`, disruption budgets, names
that match certificates, ports and settings that the programs really have.

    k8s/check.py --bin bin RENDERED.yaml..     findings, one a line; exit code 1 if there are any
    k8s/check.py --bin bin --self-test RENDERED.yaml..   breaks each rule on purpose and wants it found
"""

import argparse
import copy
import pathlib
import re
import subprocess
import sys

import yaml

NAMESPACE = "dfs"
# StatefulSet -> program, port, port name, Secret of its certificates.
SERVERS = {
    "metadata": ("metadata-server", 8080, "api", "metadata-tls"),
    "chunk": ("chunk-server", 3001, "data", "chunk-tls"),
}
# Without these a server does not start; listen and metrics_listen must fit the declared ports.
REQUIRED = {
    "metadata-server": ["ID", "ADVERTISE", "DATA_DIR", "CA", "CERT", "KEY", "LISTEN", "MASTER_KEY_FILE",
                        "ADMIN_KEY_FILE", "INITIAL_MEMBERS"],
    "chunk-server": ["ID", "ADVERTISE", "DATA_DIR", "CA", "CERT", "KEY", "LISTEN", "METADATA", "DOMAIN"],
}
SECRETS = {"metadata-tls", "chunk-tls", "cluster-keys", "dfsctl"}


def settings_of(program):
    """The DFS_* variables that a program knows, by its own --help."""
    text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    flags = set(re.findall(r"^\s+(?:-\w, )?--([a-z][a-z-]*)", text, re.M))
    not_settings = {"help", "version", "probe", "check-config", "print-config"}
    return {"DFS_" + flag.replace("-", "_").upper() for flag in flags - not_settings}


class Checker:
    def __init__(self, documents, known):
        self.documents = documents
        self.known = known
        self.findings = []

    def want(self, holds, place, message):
        if not holds:
            self.findings.append(f"{place}: {message}")

    def of_kind(self, kind):
        return [d for d in self.documents if d["kind"] == kind]

    def named(self, kind, name):
        found = [d for d in self.of_kind(kind) if d["metadata"]["name"] == name]
        self.want(len(found) == 1, f"{kind}/{name}", f"{len(found)} of them")
        return found[0] if len(found) == 1 else None

    def run(self):
        self.want(not self.of_kind("Secret"), "Secret", "keys are made by a command, never kept in manifests")
        self.want(not self.of_kind("HorizontalPodAutoscaler"), "HorizontalPodAutoscaler",
                  "a server with data is not scaled by load")
        namespace = self.named("Namespace", NAMESPACE)
        labels = (namespace or {}).get("metadata", {}).get("labels", {})
        self.want(labels.get("pod-security.kubernetes.io/enforce") == "restricted", "Namespace",
                  "does not enforce Pod Security restricted")
        for document in self.documents:
            if document["kind"] != "Namespace":
                self.want(document["metadata"].get("namespace") == NAMESPACE,
                          f"{document['kind']}/{document['metadata']['name']}", "is in no or another namespace")
        for name, server in SERVERS.items():
            stateful_set = self.named("StatefulSet", name)
            if stateful_set:
                self.stateful_set(stateful_set, *server)
        self.want(len(self.of_kind("StatefulSet")) == len(SERVERS), "StatefulSet", "there are others")
        deny = self.named("NetworkPolicy", "deny")
        if deny:
            spec = deny["spec"]
            self.want(spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "NetworkPolicy/deny",
                      "does not deny everything")
        for monitor in self.of_kind("ServiceMonitor"):
            self.service_monitor(monitor)
        return self.findings

    def stateful_set(self, document, program, port, port_name, tls):
        name = document["metadata"]["name"]
        place, spec = f"StatefulSet/{name}", document["spec"]
        pod = spec["template"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        selected = spec["selector"]["matchLabels"]
        self.restricted(place, pod)
        self.want(pod.get("automountServiceAccountToken") is False, place, "mounts a token it does not need")
        self.want(pod.get("enableServiceLinks") is False, place,
                  "service links would set variables of other Services")
        self.want(all(labels.get(k) == v for k, v in selected.items()), place, "selects other pods than its own")
        self.want(spec.get("podManagementPolicy") == "Parallel", place,
                  "members wait for each other: one after the other they never get ready")
        retention = spec.get("persistentVolumeClaimRetentionPolicy", {})
        self.want(retention == {"whenDeleted": "Retain", "whenScaled": "Retain"}, place,
                  "volumes would be deleted with it")
        self.want(spec["replicas"] >= 3, place, "has fewer than three")
        self.want(name != "metadata" or spec["replicas"] % 2 == 1, place, "an even number of members")
        self.want(pod.get("terminationGracePeriodSeconds", 30) >= 30, place, "is killed before it has stopped")
        self.want([c["metadata"]["name"] for c in spec["volumeClaimTemplates"]] == ["data"], place,
                  "wants one volume, data")

        anti = pod["affinity"]["podAntiAffinity"]
        terms = [t["podAffinityTerm"] for t in anti.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
        terms += anti.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        self.want(any(t["topologyKey"] == "kubernetes.io/hostname" and
                      t["labelSelector"]["matchLabels"] == selected for t in terms), place,
                  "is not kept apart from its own kind by machine")
        self.want(any(c["topologyKey"] == "topology.kubernetes.io/zone" and
                      c["labelSelector"]["matchLabels"] == selected
                      for c in pod.get("topologySpreadConstraints", [])), place, "is not spread over zones")

        budgets = [b for b in self.of_kind("PodDisruptionBudget")
                   if b["spec"]["selector"]["matchLabels"] == selected]
        self.want(len(budgets) == 1 and budgets[0]["spec"].get("maxUnavailable") == 1, place,
                  "wants one PodDisruptionBudget with maxUnavailable 1")

        service = self.named("Service", spec["serviceName"])
        if service:
            self.want(service["spec"].get("clusterIP") == "None", place, "its Service is not headless")
            self.want(service["spec"].get("publishNotReadyAddresses") is True, place,
                      "members could not find each other before they are ready")
            self.want(service["spec"]["selector"] == selected, place, "its Service selects other pods")

        self.want(len(pod["containers"]) == 1, place, "wants one container")
        self.container(place, document, pod["containers"][0], program, port, port_name, tls)
        policies = [p for p in self.of_kind("NetworkPolicy")
                    if p["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component") == program]
        opened = {p["port"] for policy in policies for rule in policy["spec"].get("ingress", []) for p in rule["ports"]}
        self.want(opened == {port, 9090}, place, f"NetworkPolicy opens {sorted(opened)}")

    def restricted(self, place, pod):
        """Pod Security Standards, profile restricted, as far as a pod template can break it."""
        context = pod.get("securityContext", {})
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            self.want(not pod.get(key), place, f"{key} is not restricted")
        self.want(context.get("runAsNonRoot") is True and context.get("runAsUser") not in (None, 0), place,
                  "may run as root")
        self.want(context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), place,
                  "no seccomp profile")
        self.want(context.get("fsGroup") == context.get("runAsGroup"), place,
                  "the server's group could not read its keys")
        allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI"}
        for volume in pod.get("volumes", []):
            self.want(set(volume) - {"name"} <= allowed, place, f"volume {volume['name']} is not restricted")
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container.get("securityContext", {})
            self.want(own.get("allowPrivilegeEscalation") is False, place, "may gain privileges")
            self.want(own.get("readOnlyRootFilesystem") is True, place, "may write its root file system")
            self.want(own.get("capabilities") == {"drop": ["ALL"]}, place, "keeps capabilities")
            self.want(not own.get("privileged") and own.get("runAsUser") != 0, place, "is privileged")
            self.want(all("hostPort" not in p for p in container.get("ports", [])), place, "takes a port of the host")
            resources = container.get("resources", {})
            self.want({"cpu", "memory"} <= set(resources.get("requests", {})) and
                      "memory" in resources.get("limits", {}), place, "has no requests or no limit of memory")

    def container(self, place, document, container, program, port, port_name, tls):
        spec = document["spec"]
        name, service, replicas = document["metadata"]["name"], spec["serviceName"], spec["replicas"]
        self.want(container["image"].startswith(f"distribute/{program}:"), place, f"image {container['image']}")
        env = {}
        for source in container.get("envFrom", []):
            settings = self.named("ConfigMap", source["configMapRef"]["name"])
            env.update((settings or {}).get("data", {}))
        for variable in container["env"]:
            env[variable["name"]] = variable.get("value", variable.get("valueFrom"))
        for variable in env:
            self.want(variable in self.known[program], place, f"{program} has no setting {variable}")
        for setting in REQUIRED[program]:
            self.want("DFS_" + setting in env, place, f"DFS_{setting} is missing")

        self.want(env.get("DFS_ID") == {"fieldRef": {"fieldPath": "metadata.name"}}, place,
                  "the pod's name is not the server's name")
        host = f"{service}.{NAMESPACE}.svc"
        self.want(env.get("DFS_ADVERTISE") == f"$(DFS_ID).{host}:{port}", place,
                  f"advertises {env.get('DFS_ADVERTISE')}")
        self.want(container["env"][0]["name"] == "DFS_ID", place, "DFS_ID must come before what names it")
        self.want(env.get("DFS_LISTEN") == f"0.0.0.0:{port}", place, f"listens at {env.get('DFS_LISTEN')}")
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        self.want(ports == {port_name: port, "metrics": 9090}, place, f"declares ports {ports}")
        self.want(env.get("DFS_METRICS_LISTEN") == "0.0.0.0:9090", place, "serves metrics elsewhere")
        members = [f"metadata-{i}.metadata.{NAMESPACE}.svc:8080" for i in range(3)]
        if program == "metadata-server":
            want = ",".join(f"metadata-{i}={address}" for i, address in enumerate(members))
            self.want(env.get("DFS_INITIAL_MEMBERS") == want and replicas >= 3, place,
                      f"initial members are {env.get('DFS_INITIAL_MEMBERS')}")
        else:
            self.want(env.get("DFS_METADATA") == ",".join(members), place,
                      f"metadata servers are {env.get('DFS_METADATA')}")

        # Its own pair of the Secret alone, found by the server's name.
        volumes = {v["name"]: v for v in spec["template"]["spec"]["volumes"]}
        files = {m["mountPath"]: m for m in container["volumeMounts"]}
        for setting, key in (("DFS_CA", "ca.pem"), ("DFS_CERT", "$(DFS_ID).pem"), ("DFS_KEY", "$(DFS_ID).key")):
            mount = files.get(env.get(setting), {})
            self.want(key in (mount.get("subPath"), mount.get("subPathExpr")) and mount.get("readOnly") is True and
                      volumes.get(mount.get("name"), {}).get("secret", {}).get("secretName") == tls, place,
                      f"{setting} is not {key} of the Secret {tls}")
        for mount in container["volumeMounts"]:
            if mount.get("name") == "tls":
                self.want("subPath" in mount or "subPathExpr" in mount, place, "sees the keys of its siblings")
        for volume in volumes.values():
            if "secret" in volume:
                self.want(volume["secret"]["secretName"] in SECRETS, place, "uses a Secret that nobody makes")
                self.want(volume["secret"].get("defaultMode") == 0o400, place, "keys are not mode 0400")
                if volume["secret"]["secretName"] == "cluster-keys":
                    self.want(program == "metadata-server", place, "a chunk server sees the master key")
        if program == "metadata-server":
            for setting in ("DFS_MASTER_KEY_FILE", "DFS_ADMIN_KEY_FILE"):
                folder = str(pathlib.PurePath(env.get(setting, "/")).parent)
                self.want(volumes.get(files.get(folder, {}).get("name"), {}).get("secret", {}).get("secretName") ==
                          "cluster-keys", place, f"{setting} is not in the Secret cluster-keys")
        self.want(files.get(env.get("DFS_DATA_DIR"), {}).get("name") == "data", place, "data is not on the volume")
        self.want(env.get("DFS_CAPACITY", "0").isdigit(), place, "DFS_CAPACITY is no number")

        for probe, path in (("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")):
            get = container.get(probe, {}).get("httpGet", {})
            self.want(get == {"path": path, "port": port_name, "scheme": "HTTPS"}, place, f"{probe} asks {get}")
        startup = container.get("startupProbe", {})
        self.want(startup.get("periodSeconds", 0) * startup.get("failureThreshold", 0) >= 120, place,
                  "is killed while it opens its data")

    def service_monitor(self, monitor):
        expression = monitor["spec"]["selector"]["matchExpressions"][0]
        chosen = [s for s in self.of_kind("Service")
                  if s["metadata"]["labels"].get(expression["key"]) in expression["values"] and
                  any(p["name"] == monitor["spec"]["endpoints"][0]["port"] for p in s["spec"]["ports"])]
        self.want({s["metadata"]["name"] for s in chosen} == {"metadata", "chunk"}, "ServiceMonitor",
                  "does not choose the two headless Services")


def breakages():
    """Name, and what to do to the documents: each must be found."""
    def pod(documents, name="chunk"):
        return next(d for d in documents if d["kind"] == "StatefulSet" and d["metadata"]["name"] == name)["spec"]["template"]["spec"]

    def container(documents, name="chunk"):
        return pod(documents, name)["containers"][0]

    def env(documents, variable, value, name="chunk"):
        next(e for e in container(documents, name)["env"] if e["name"] == variable).update(value)

    def kind(documents, kind):
        return next(d for d in documents if d["kind"] == kind)

    def drop(documents, kind):
        documents[:] = [d for d in documents if d["kind"] != kind]

    return {
        "root": lambda d: pod(d)["securityContext"].update(runAsNonRoot=False),
        "root file system": lambda d: container(d)["securityContext"].update(readOnlyRootFilesystem=False),
        "capabilities": lambda d: container(d)["securityContext"].pop("capabilities"),
        "host network": lambda d: pod(d).update(hostNetwork=True),
        "host path": lambda d: pod(d)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "no seccomp": lambda d: pod(d)["securityContext"].pop("seccompProfile"),
        "no budget": lambda d: drop(d, "PodDisruptionBudget"),
        "budget of two": lambda d: kind(d, "PodDisruptionBudget")["spec"].update(maxUnavailable=2),
        "open network": lambda d: drop(d, "NetworkPolicy"),
        "namespace": lambda d: kind(d, "Namespace")["metadata"].pop("labels"),
        "misspelt setting": lambda d: kind(d, "ConfigMap")["data"].update(DFS_CAPACTIY="1"),
        "wrong name": lambda d: env(d, "DFS_ID", {"valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}),
        "wrong address": lambda d: env(d, "DFS_ADVERTISE", {"value": "chunk:3001"}),
        "wrong certificate": lambda d: container(d)["volumeMounts"][2].update(subPathExpr="chunk-0.pem"),
        "siblings' keys": lambda d: container(d)["volumeMounts"].append({"name": "tls", "mountPath": "/all"}),
        "wrong port": lambda d: container(d)["ports"][0].update(containerPort=3000),
        "plain probe": lambda d: container(d)["livenessProbe"]["httpGet"].pop("scheme"),
        "no startup probe": lambda d: container(d).pop("startupProbe"),
        "one after the other": lambda d: kind(d, "StatefulSet")["spec"].update(podManagementPolicy="OrderedReady"),
        "volumes deleted": lambda d: kind(d, "StatefulSet")["spec"].pop("persistentVolumeClaimRetentionPolicy"),
        "four members": lambda d: next(x for x in d if x["kind"] == "StatefulSet" and x["metadata"]["name"] == "metadata")["spec"].update(replicas=4),
        "unready names": lambda d: [s["spec"].pop("publishNotReadyAddresses", None) for s in d if s["kind"] == "Service"],
        "a key committed": lambda d: d.append({"kind": "Secret", "metadata": {"name": "x", "namespace": NAMESPACE}}),
        "no anti-affinity": lambda d: pod(d)["affinity"]["podAntiAffinity"].clear(),
        "no memory limit": lambda d: container(d)["resources"].pop("limits"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="folder of metadata-server and chunk-server")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    known = {program: settings_of(args.bin / program) for program in REQUIRED}
    failed = False
    for file in args.files:
        documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
        if args.self_test:
            missed = []
            for name, break_it in breakages().items():
                broken = copy.deepcopy(documents)
                break_it(broken)
                if not Checker(broken, known).run():
                    missed.append(name)
            print(f"{file.name}: {len(breakages()) - len(missed)} of {len(breakages())} breakages found")
            for name in missed:
                print(f"  not found: {name}")
            failed |= bool(missed)
            continue
        findings = Checker(documents, known).run()
        print(f"{file.name}: {len(documents)} documents, {len(findings)} findings")
        for finding in findings:
            print(f"  {finding}")
        failed |= bool(findings)
    sys.exit(failed)


if __name__ == "__main__":
    main()
