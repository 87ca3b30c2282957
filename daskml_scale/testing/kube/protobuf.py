"""What ``kubectl auth can-i`` and ``create token`` send in protobuf, as the objects that they are in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .store import Refused

MAGIC = b"k8s\x00"
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_ATTRIBUTES = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}


def review(data: bytes) -> dict[str, Any]:
    """Return a review, or a TokenRequest (without its spec, which nobody reads); other kinds are taken as JSON only."""
    unknown = dict(fields(data.removeprefix(MAGIC)))
    kind = dict(fields(unknown[1]))[2].decode()
    if kind == "TokenRequest":
        return {"kind": kind, "spec": {}}
    if kind not in ("SelfSubjectAccessReview", "SelfSubjectRulesReview"):
        raise Refused(415, f"this server takes a {kind} as JSON only, such as kubectl create -f FILE sends")
    spec = dict(fields(dict(fields(unknown[2])).get(2, b"")))
    if kind == "SelfSubjectRulesReview":
        return {"kind": kind, "spec": {"namespace": spec.get(1, b"").decode()}}
    asked = {_ATTRIBUTES[key]: value.decode() for key, value in fields(spec.get(1, b"")) if key in _ATTRIBUTES}
    return {"kind": kind, "spec": {"resourceAttributes": asked}}


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the fields of a message that have a length; the others are left out."""
    place = 0
    while place < len(data):
        tag, place = _number(data, place)
        if tag & 7 == 0:
            _, place = _number(data, place)
            continue
        size, place = _number(data, place) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], place)
        if tag & 7 == 2:
            yield tag >> 3, data[place : place + size]
        place += size


def _number(data: bytes, place: int) -> tuple[int, int]:
    found, shift = 0, 0
    while True:
        byte = data[place]
        found |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return found, place
