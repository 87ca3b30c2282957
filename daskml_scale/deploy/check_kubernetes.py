"""Prove a Kubernetes definition before it is used: whether the server answers, and what its user may do there.

Nothing is made. The rights are asked for with a SelfSubjectRulesReview, which every user may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.spec.kubernetes import KubernetesSpec

from .findings import Finding
from .kube_client import RIGHTS, Kube, detail, inside

NEEDED = {
    ("", "pods"): ("create", "list", "watch", "delete"),
    ("", "pods/log"): ("get",),
    ("", "secrets"): ("create",),
    ("batch", "jobs"): ("create", "delete"),
}
"""(API group, resource) -> verbs that a driver needs in the namespace."""
TUNNEL = {("", "pods/portforward"): ("get", "create")}
"""And one outside the cluster."""
SUBMIT = {("", "configmaps"): ("create",), ("batch", "jobs"): ("get",)}
"""And one that hands runs over, beside the above."""
REVIEW = "authorization.k8s.io"


def missing(rules: Iterable[Mapping[str, Any]], needed: Mapping[tuple[str, str], Iterable[str]]) -> list[str]:
    """Return what rules do not allow, as ``verb resource``. Pure."""
    found = list(rules)

    def allows(rule: Mapping[str, Any], verb: str, group: str, resource: str) -> bool:
        wanted = (("verbs", verb), ("apiGroups", group), ("resources", resource))
        part = f"*/{resource.partition('/')[2]}" if "/" in resource else "*"
        unnamed = not rule.get("resourceNames")
        return unnamed and all({one, "*", part if key == "resources" else "*"} & set(rule.get(key) or ())
                               for key, one in wanted)  # fmt: skip

    return [
        f"{verb} {resource}"
        for (group, resource), verbs in needed.items()
        for verb in verbs
        if not any(allows(rule, verb, group, resource) for rule in found)
    ]


def check_kubernetes(spec: KubernetesSpec) -> Iterator[Finding]:
    """Yield what was found about a definition, in the order in which a start would meet it."""
    yield from asyncio.run(_ask(spec))


async def _ask(spec: KubernetesSpec) -> list[Finding]:
    kube = Kube(spec.kubernetes)
    try:
        await kube.open()
        body = {"apiVersion": f"{REVIEW}/v1", "kind": "SelfSubjectRulesReview",
                "spec": {"namespace": spec.kubernetes.namespace}}  # fmt: skip
        code, found = await kube.call("POST", "selfsubjectrulesreviews", body, group=REVIEW, namespaced=False)
    except (ClusterError, UsageError) as error:
        return [Finding("server", False, str(error))]
    finally:
        await kube.close()
    if code >= 300:
        return [Finding("server", False, f"it refuses to say what is allowed: {detail(found)}", "ask who runs it")]
    return [Finding("server", True, "it answers, and knows the user"), *_judge(spec, found["status"])]


def _rights(what: str, lacking: Sequence[str], spec: KubernetesSpec, status: Mapping[str, Any]) -> Finding:
    where = f"in namespace {spec.kubernetes.namespace}"
    if not lacking:
        return Finding(what, True, f"all that is needed {where}")
    if status.get("incomplete"):
        # An authorizer that cannot list its rules, such as a cloud's, may allow what is not listed.
        return Finding(what, True, f"the server does not list them all; not listed {where}: {', '.join(lacking)}")
    return Finding(what, False, f"missing {where}: {', '.join(lacking)}", RIGHTS)


def _judge(spec: KubernetesSpec, status: Mapping[str, Any]) -> Iterator[Finding]:
    direct = spec.kubernetes.connect == "direct" or (spec.kubernetes.connect == "auto" and inside())
    lacking = missing(status.get("resourceRules") or (), NEEDED if direct else {**NEEDED, **TUNNEL})
    yield _rights("rights", lacking, spec, status)
    if not inside():
        yield _rights("submit", missing(status.get("resourceRules") or (), SUBMIT), spec, status)
    reached = "by the address of its Pod" if direct else "through the API server's port-forward"
    yield Finding("connection", True, f"the scheduler is reached {reached}")
    for name, item in spec.classes.items():
        cores, memory = item.cpu or item.threads, item.memory
        said = f"up to {item.workers.max:,} Pods of {cores:g} CPU and {memory}, threads of each: {item.threads}"
        yield Finding(name, True, said)
