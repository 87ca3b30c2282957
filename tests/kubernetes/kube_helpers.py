"""Definitions, and what is left of a cluster."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

CPU: dict[str, Any] = {
    "workers": {"min": 1, "max": 2}, "memory": "512MiB", "cpu": 0.1, "startup": "60s",
}  # fmt: skip


def labelled(farm: Any, cluster: Any) -> list[dict[str, Any]]:
    """Return the worker Pods of a cluster."""
    return list(farm.listed("pods", labelSelector=f"daskml-scale/cluster={cluster.name},daskml-scale/role=worker"))


def nothing_left(farm: Any) -> bool:
    """Return whether neither objects nor processes of clusters are there."""
    return not farm.left() and not farm.processes()


class Kubectl:
    """The real ``kubectl``, in the namespace of a farm."""

    def __init__(self, farm: Any, kubeconfig: Any = None) -> None:
        found = shutil.which("kubectl")
        if found is None:
            pytest.skip("kubectl is not installed")
        self.base = [found, "--kubeconfig", str(kubeconfig or farm.kubeconfig), "-n", farm.namespace]

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and return what came out."""
        return subprocess.run([*self.base, *arguments], input=given, capture_output=True, text=True, timeout=120)

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Run it and return what it printed; it must succeed."""
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen([*self.base, *arguments], stdout=subprocess.PIPE, text=True)


class Recorder:
    """A sink that keeps what it receives."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    def said(self, *words: str) -> list[str]:
        """Return the warnings that have all these words."""
        found = [event.message for event in self.events if event.kind == "warned"]
        return [text for text in found if all(word in text for word in words)]
