"""Using a cluster that outlives the shell (see `named`): join it, scale it, look at its workers and logs.

Apart from `named` because this needs Dask, which whoever only asks whether a name is taken need not import.
"""

from __future__ import annotations

from typing import Any

from daskml_scale.deploy.existing import JoinedCluster
from daskml_scale.spec.cluster import Certificates

from .named import TOPIC, Named, folder, required


class NamedCluster(JoinedCluster):
    """A named cluster that runs; leaving it closes our connections and nothing else."""

    def __init__(self, named: Named) -> None:
        self.named = named
        super().__init__(named.name, named.address, Certificates(**named.certificates) if named.certificates else None)

    @property
    def dashboard_link(self) -> str:
        """Where this machine reaches the dashboard, as its holder knows."""
        return self.named.dashboard

    @property
    def logs(self) -> str:
        """Folder or file with what its workers write."""
        return self.named.logs

    def scale(self, n: int = 0, worker_class: str | None = None) -> None:
        """Ask for ``n`` workers of a class (the first when not named); the cluster then follows its backlog no more.

        It happens in the background, as with every Dask cluster.
        """
        with self.get_client(set_as_default=False) as client:
            client.log_event(TOPIC, {"workers": int(n), "worker_class": worker_class})


def workers_of(name: str) -> list[dict[str, Any]]:
    """Return name, threads, memory, tasks of each worker of a named cluster, by name."""
    with NamedCluster(required(name)) as cluster, cluster.get_client(set_as_default=False) as client:
        found = client.scheduler_info(n_workers=-1)["workers"]
    return sorted(
        (
            {
                "worker": str(worker["name"]),
                "threads": worker["nthreads"],
                "memory": worker["metrics"].get("memory", 0),
                "limit": worker["memory_limit"],
                "running": worker["metrics"].get("task_counts", {}).get("executing", 0),
                "address": address,
            }
            for address, worker in found.items()
        ),
        key=lambda row: str(row["worker"]),
    )


def logs_of(name: str, lines: int) -> dict[str, str]:
    """Return the last lines that scheduler, workers and holder of a named cluster wrote."""
    one = required(name)
    with NamedCluster(one) as cluster, cluster.get_client(set_as_default=False) as client:
        found = {"scheduler": client.get_scheduler_logs(n=lines), **client.get_worker_logs(n=lines)}
    texts = {place: "\n".join(line for _, line in reversed(said)) for place, said in found.items()}
    log = folder() / f"{name}.log"
    own = log.read_text(errors="replace").splitlines() if log.exists() else []
    return {**texts, "holder": "\n".join(own[-lines:])}
