"""Where tasks run: clusters from definitions, scaled by their backlog.

``cluster`` is the door; backends are imported when they are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskml_scale import events

if TYPE_CHECKING:
    from daskml_scale.spec.cluster import ClusterSpec

    from .local import ScaledLocalCluster

__all__ = ["cluster"]


def cluster(
    spec: str | os.PathLike[str] | ClusterSpec | Mapping[str, Any] = "local",
    *,
    preload: Sequence[str] = (),
    sink: events.Sink = events.ignore,
    adapt: bool = True,
) -> ScaledLocalCluster:
    """Start a cluster and return it; ``with`` closes it.

    Parameters
    ----------
    spec : str, path, ClusterSpec or mapping
        A name (``./clusters/NAME.yaml``, then the packaged ones), a file, or the definition itself.
    preload : sequence of str
        Names of modules that the scheduler loads besides the backlog's, each with ``dask_setup``.
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
    from .local import ScaledLocalCluster

    return ScaledLocalCluster(_read(spec), preload=preload, sink=sink, adapt=adapt)


def _read(spec: str | os.PathLike[str] | ClusterSpec | Mapping[str, Any]) -> ClusterSpec:
    from pydantic import ValidationError

    from daskml_scale.spec.cluster import ClusterSpec
    from daskml_scale.spec.explain import explain
    from daskml_scale.spec.find import find_cluster
    from daskml_scale.spec.load import first_error, load_cluster

    if isinstance(spec, ClusterSpec):
        return spec
    if isinstance(spec, Mapping):
        try:
            return ClusterSpec.model_validate(dict(spec))
        except ValidationError as error:
            raise first_error(explain(error, ClusterSpec, dict(spec)), {}, None) from None
    return load_cluster(find_cluster(os.fspath(spec)))
