"""A cluster of Pods keeps the contract of all clusters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daskml_scale import deploy
from daskml_scale.testing.clusters import ClusterContract

CLASS: dict[str, Any] = {"workers": {"min": 1, "max": 2}, "memory": "1GiB", "cpu": 0.1}
OTHER: dict[str, Any] = {**CLASS, "workers": {"min": 1, "max": 1}, "resources": {"OTHER": 1}}


class Kubernetes:
    first, second = "cpu", "other"

    def __init__(self, farm: Any) -> None:
        self.farm = farm

    def definition(self, both: bool = False) -> dict[str, Any]:
        return dict(self.farm.definition({"cpu": CLASS, "other": OTHER} if both else {"cpu": CLASS}))

    def start(self, *, both: bool, adapt: bool = False) -> Any:
        found = deploy.cluster(self.definition(both))
        if not adapt:
            found._adaptive.stop()
        return found

    def start_in_loop(self) -> Any:
        from daskml_scale.deploy.kubernetes import ScaledKubernetesCluster
        from daskml_scale.spec.kubernetes import KubernetesSpec

        return ScaledKubernetesCluster(KubernetesSpec.model_validate(self.definition()), asynchronous=True)

    def broken(self) -> tuple[Any, str]:
        made = self.definition()
        return {**made, "kubernetes": {**made["kubernetes"], "pod": {"nodeNam": "x"}}}, "nodeNam"

    def leftovers(self) -> list[str]:
        keys = [str(path) for path in (Path(os.environ["DASKML_SCALE_HOME"]) / "clusters").rglob("*.pem")]
        return [*self.farm.left(), *(f"process {one.pid}" for one in self.farm.processes()), *keys]


@pytest.mark.slow
class TestKubernetes(ClusterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, farm: Any) -> Kubernetes:
        return Kubernetes(farm)
