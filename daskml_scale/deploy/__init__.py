"""Where tasks run: clusters from definitions, scaled by their backlog.

``cluster`` is the door; backends are imported when they are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskml_scale import events
from daskml_scale.errors import UsageError

if TYPE_CHECKING:
    from daskml_scale.spec.hosts import Definition

__all__ = ["cluster"]


def cluster(
    spec: str | os.PathLike[str] | Definition | Mapping[str, Any] = "local",
    *,
    preload: Sequence[str] = (),
    sink: events.Sink = events.ignore,
    adapt: bool = True,
) -> Any:
    """Start a cluster and return it; ``with`` closes it.

    Parameters
    ----------
    spec : str, path, ClusterSpec, SshSpec, KubernetesSpec, ExistingSpec or mapping
        A name (``./clusters/NAME.yaml``, then the packaged ones), a file, or the definition itself.
    preload : sequence of str
        Names of modules that a scheduler of ours loads besides the backlog's, each with ``dask_setup``.
    sink : callable
        Receives an `events.Scaled` for every change, on the event loop's thread.
    adapt : bool
        Follow the backlog; otherwise every class starts with its most workers.

    Returns
    -------
    distributed.deploy.Cluster
        With ``get_client``, ``scale``, ``adapt``, ``dashboard_link`` and ``close``.

    Raises
    ------
    SpecError
        If there is no such definition or it is wrong; nothing was started.
    ClusterError
        If a process does not start; nothing is left behind.
    """
    from daskml_scale.spec.cluster import ExistingSpec
    from daskml_scale.spec.hosts import SshSpec
    from daskml_scale.spec.kubernetes import KubernetesSpec

    read = _read(spec)
    if isinstance(read, ExistingSpec):
        from .existing import join, start

        return join(read) if read.address else start(read, sink=sink, adapt=adapt)
    if isinstance(read, SshSpec):
        from .ssh import ScaledSSHCluster

        return ScaledSSHCluster(read, preload=preload, sink=sink, adapt=adapt)
    if isinstance(read, KubernetesSpec):
        from .kubernetes import ScaledKubernetesCluster

        return ScaledKubernetesCluster(read, preload=preload, sink=sink, adapt=adapt)
    from .local import ScaledLocalCluster

    return ScaledLocalCluster(read, preload=preload, sink=sink, adapt=adapt)


def _read(spec: str | os.PathLike[str] | Definition | Mapping[str, Any]) -> Definition:
    from pydantic import ValidationError

    from daskml_scale.spec.cluster import ExistingSpec, OwnSpec
    from daskml_scale.spec.explain import explain
    from daskml_scale.spec.find import find_cluster
    from daskml_scale.spec.load import cluster_model, first_error, load_cluster

    if isinstance(spec, (OwnSpec, ExistingSpec)):
        return spec
    if isinstance(spec, Mapping):
        model = cluster_model(spec)
        try:
            return model.model_validate(dict(spec))
        except ValidationError as error:
            raise first_error(explain(error, model, dict(spec)), {}, None) from None
    if not isinstance(spec, str) and not hasattr(spec, "__fspath__"):
        raise UsageError(f"{spec!r} is no cluster; give a name such as 'local', a file, or a mapping of what is in one")
    return load_cluster(find_cluster(os.fspath(spec)))
