"""Cluster files of the backend ``kubernetes``: where Pods run, what they are made of, and how they are reached."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import ByteSize, Duration, Spec, Word
from .cluster import OwnSpec, WorkerClass

Text = Annotated[str, Field(min_length=1)]
PodTemplate = dict[str, Any]
"""Part of a Pod's spec, in Kubernetes' own words; the API server refuses unknown fields."""
LONGEST = 40
"""Letters of a cluster's and a class's name together: names of Pods are longer by 23 and have at most 63."""
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def _check_label(text: Any) -> Any:
    if not isinstance(text, str) or not _LABEL.fullmatch(text) or len(text) > 63:
        raise ValueError(f"{text!r} is not a name of Kubernetes: small letters, digits and '-', at most 63")
    return text


Label = Annotated[str, BeforeValidator(_check_label)]


class KubernetesOptions(Spec):
    """Where and how Pods are made.

    Attributes
    ----------
    namespace : str
    image : str
        With this package in it, of the same version as here: ``clusters/kubernetes/Dockerfile``.
    image_pull_secrets : list of str
        Names of Secrets.
    tls_secret : str
        ``auto``: certificates are made for each cluster and deleted with it.
    kubeconfig, context : str
        As for ``kubectl``; by default its own, and in a Pod the service account.
    connect : str
        ``direct``: by the address of a Pod. ``tunnel``: through the API server. ``auto``: direct inside the cluster.
    lease : str
        So long the scheduler waits for a silent driver; then everything ends. A lost connection ends it sooner.
    service_account : str
        Of the runner of a submitted run, the only Pod with a token.
    code : str
        Where a submitted run has the Python of its workflow from: ``configmap`` takes that beside it along, 1 MiB at
        most; ``image`` takes none, all is installed in the image.
    pod : mapping
        Part of the spec of every Pod.
    """

    namespace: Label
    image: Text
    image_pull_secrets: list[Text] = Field(default_factory=list)
    tls_secret: Literal["auto"] = "auto"
    kubeconfig: Text | None = None
    context: Text | None = None
    connect: Literal["auto", "direct", "tunnel"] = "auto"
    lease: Duration = "30s"
    service_account: Label = "daskml-runner"
    code: Literal["configmap", "image"] = "configmap"
    pod: PodTemplate = Field(default_factory=dict)


class SchedulerPod(Spec):
    """What the scheduler asks for, or the runner of a submitted run.

    Attributes
    ----------
    pod : mapping
        Part of its Pod's spec.
    """

    memory: ByteSize = "2GiB"
    cpu: Annotated[float, Field(gt=0)] = 1.0
    pod: PodTemplate = Field(default_factory=dict)


class KubernetesClass(WorkerClass):
    """A class of equal Pods; ``startup`` is also how long one may go without a Node.

    Attributes
    ----------
    cpu : float
        Cores that a Pod asks for; as many as it has threads when not said.
    pod : mapping
        Part of its Pods' spec.
    """

    memory: ByteSize
    startup: Duration = "60s"
    cpu: Annotated[float, Field(gt=0)] | None = None
    pod: PodTemplate = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounded(self) -> KubernetesClass:
        if self.workers.max == "auto":
            raise PydanticCustomError(
                "workers", "workers.max is not said; a Kubernetes cluster may grow without end: write a number"
            )
        if "GPU" in self.resources and self.resources["GPU"] % 1:
            raise PydanticCustomError("resources", "GPU: Kubernetes gives whole devices only")
        return self


class KubernetesSpec(OwnSpec):
    """A whole cluster file of the backend ``kubernetes``.

    Attributes
    ----------
    runner : SchedulerPod
        Of a submitted run.
    """

    backend: Literal["kubernetes"]
    kubernetes: KubernetesOptions
    scheduler: SchedulerPod = Field(default_factory=SchedulerPod)
    runner: SchedulerPod = Field(default_factory=SchedulerPod)
    classes: Annotated[dict[Word, KubernetesClass], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> KubernetesSpec:
        for name in (self.name, *self.classes):
            if not _LABEL.fullmatch(name):
                raise PydanticCustomError(
                    "name", "{name} becomes part of the names of Pods: small letters, digits and '-'", {"name": name}
                )
        longest = max(self.classes, key=len)
        if len(self.name) + len(longest) > LONGEST:
            raise PydanticCustomError(
                "name",
                "{name} and {item} are too long for the names of Pods: at most {most} letters together",
                {"name": self.name, "item": longest, "most": LONGEST},
            )
        return self
