"""What an API server refuses, as pure functions: rights, quotas, pod security, unknown fields.

The messages are those of a real server, which clients take apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from .store import Kind, Object, Refused

ADMIN = "kubernetes-admin"
"""User who may do everything."""
OPEN_GROUP = "authorization.k8s.io"
"""Everybody may ask what they may do."""


def rules_of(user: str, namespace: str, bindings: Iterable[Object], roles: Mapping[str, Object]) -> list[Object]:
    """Return the rules that a user has in a namespace, from its RoleBindings and its Roles by name."""
    found: list[Object] = []
    for binding in bindings:
        if any(_is(subject, user, namespace) for subject in binding.get("subjects") or ()):
            role = roles.get(binding["roleRef"]["name"])
            found += (role or {}).get("rules") or []
    return found


def _is(subject: Mapping[str, Any], user: str, namespace: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace', namespace)}:{subject['name']}"
    return bool(subject["name"] == user)


def allowed(rules: Iterable[Object], verb: str, group: str, resource: str) -> bool:
    """Return whether rules allow a verb on a resource, ``pods/log`` for a subresource."""
    return any(
        _has(rule.get("verbs"), verb) and _has(rule.get("apiGroups"), group) and _has(rule.get("resources"), resource)
        for rule in rules
    )


def _has(listed: Iterable[str] | None, wanted: str) -> bool:
    return any(item in ("*", wanted) for item in listed or ())


def forbidden(user: str, verb: str, group: str, resource: str, namespace: str, name: str) -> Refused:
    """Return the refusal of what a user may not do."""
    full = resource.split("/")[0] + (f".{group}" if group else "")
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    named = f' "{name}"' if name else ""
    return Refused(
        403,
        f'{full}{named} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{group}"{where}',
        details={"name": name, "group": group, "kind": resource},
    )


# Quotas

_UNITS = {"m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
          "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40)}  # fmt: skip


def quantity(text: Any) -> Decimal:
    """Return the number that a quantity such as ``500m`` or ``2Gi`` stands for."""
    written = str(text)
    for unit in sorted(_UNITS, key=len, reverse=True):
        if written.endswith(unit):
            return Decimal(written[: -len(unit)]) * _UNITS[unit]
    return Decimal(written)


def usage(pod: Object) -> dict[str, Decimal]:
    """Return what a Pod takes of a quota; a Pod that has ended takes only its place among all objects."""
    found = {"count/pods": Decimal(1)}
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return found
    found["pods"] = Decimal(1)
    for container in pod["spec"].get("containers", ()):
        resources = container.get("resources") or {}
        for sort in ("requests", "limits"):
            listed = {**(resources.get("limits") or {}), **(resources.get(sort) or {})}
            for name, value in listed.items():
                key = f"{sort}.{name}"
                found[key] = found.get(key, Decimal(0)) + quantity(value)
    return found


def check_quota(pod: Object, pods: Iterable[Object], quotas: Iterable[Object]) -> None:
    """Refuse a Pod that is too much for a quota of its namespace."""
    wanted, limits = usage(pod), list(quotas)
    if not limits:
        return
    used: dict[str, Decimal] = {}
    for other in pods:
        for key, value in usage(other).items():
            used[key] = used.get(key, Decimal(0)) + value
    for quota in limits:
        hard = {key: quantity(value) for key, value in (quota["spec"].get("hard") or {}).items()}
        over = [key for key in sorted(hard) if wanted.get(key) and used.get(key, Decimal(0)) + wanted[key] > hard[key]]
        if over:
            asked = ",".join(f"{key}={wanted[key].normalize():f}" for key in over)
            have = ",".join(f"{key}={used.get(key, Decimal(0)).normalize():f}" for key in over)
            most = ",".join(f"{key}={quota['spec']['hard'][key]}" for key in over)
            raise Refused(
                403,
                f'pods "{pod["metadata"].get("name", "")}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, '
                f"requested: {asked}, used: {have}, limited: {most}",
            )


# Pod security "restricted"


def check_security(pod: Object, namespace: Object | None) -> None:
    """Refuse a Pod that breaks the level ``restricted`` when its namespace enforces it."""
    labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        return
    if broken := list(_violations(pod["spec"])):
        raise Refused(
            403,
            f'pods "{pod["metadata"].get("name", "")}" is forbidden: violates PodSecurity "restricted:latest": '
            + ", ".join(broken),
        )


def _violations(spec: Object) -> Iterator[str]:
    outer = spec.get("securityContext") or {}
    containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]

    def bad(test: Any) -> str:
        return ", ".join(f'"{one["name"]}"' for one in containers if not test(one.get("securityContext") or {}))

    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces (hostNetwork, hostPID or hostIPC must not be set)"
    if paths := [volume["name"] for volume in spec.get("volumes", ()) if "hostPath" in volume]:
        yield f'restricted volume types (volume "{paths[0]}" uses restricted volume type "hostPath")'
    if named := bad(lambda own: own.get("allowPrivilegeEscalation") is False):
        yield f"allowPrivilegeEscalation != false (container {named} must set " \
              "securityContext.allowPrivilegeEscalation=false)"  # fmt: skip
    if named := bad(lambda own: "ALL" in ((own.get("capabilities") or {}).get("drop") or ())):
        yield f'unrestricted capabilities (container {named} must set securityContext.capabilities.drop=["ALL"])'
    if named := bad(lambda own: own.get("runAsNonRoot", outer.get("runAsNonRoot")) is True):
        yield f"runAsNonRoot != true (pod or container {named} must set securityContext.runAsNonRoot=true)"
    if named := bad(lambda own: (own.get("seccompProfile") or outer.get("seccompProfile") or {}).get("type")
                    in ("RuntimeDefault", "Localhost")):  # fmt: skip
        yield f'seccompProfile (pod or container {named} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'  # noqa: E501


# Unknown fields


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OBJECT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_METADATA = _words(
    "name generateName namespace uid resourceVersion generation creationTimestamp deletionTimestamp "
    "deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields selfLink"
)
_POD = _words(
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks "
    "ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname imagePullSecrets initContainers "
    "nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims "
    "resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext serviceAccount "
    "serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations "
    "topologySpreadConstraints volumes"
)
_CONTAINER = _words(
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy "
    "resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath "
    "terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
)
_JOB = _words(
    "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy manualSelector "
    "maxFailedIndexes parallelism podFailurePolicy podReplacementPolicy selector successPolicy suspend template "
    "ttlSecondsAfterFinished"
)


def check_fields(kind: Kind, item: Object) -> None:
    """Refuse fields that Pods and Jobs do not have: what ``fieldValidation=Strict`` asks for."""
    if unknown := [f'unknown field "{path}"' for path in _unknown(kind, item)]:
        raise Refused(
            400,
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding error: '
            + ", ".join(unknown),
        )


def _unknown(kind: Kind, item: Object) -> Iterator[str]:
    yield from _extra(item.get("metadata"), _METADATA, "metadata")
    if kind.kind == "Pod":
        yield from _extra(item, _OBJECT, "")
        yield from _unknown_in_pod(item.get("spec") or {}, "spec")
    elif kind.kind == "Job":
        yield from _extra(item, _OBJECT, "")
        spec = item.get("spec") or {}
        yield from _extra(spec, _JOB, "spec")
        template = spec.get("template") or {}
        yield from _extra(template, frozenset({"metadata", "spec"}), "spec.template")
        yield from _unknown_in_pod(template.get("spec") or {}, "spec.template.spec")


def _unknown_in_pod(spec: Object, path: str) -> Iterator[str]:
    yield from _extra(spec, _POD, path)
    for sort in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(sort) or ()):
            yield from _extra(container, _CONTAINER, f"{path}.{sort}[{number}]")


def _extra(item: Mapping[str, Any] | None, known: frozenset[str], path: str) -> Iterator[str]:
    yield from (f"{path}.{key}".lstrip(".") for key in item or () if key not in known)
