"""Which types a model file may hold: skops audits the file, this list says what else is let through.

skops knows scikit-learn's public estimators. The types below are internal parts of them that skops
leaves to the reader, because it checks the type and not the content: a crafted tree can name a node
that does not exist and crash ``predict``. They run no code on load, and they are let through only for
a file whose hash is the one its bundle names, so what was saved here loads here. Everything else is
refused until the caller names it. Nothing here ever unpickles. This is the only module that imports skops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias
from zipfile import BadZipFile

from daskml_scale.errors import UntrustedError

Trusted: TypeAlias = "Sequence[str | type]"
"""Types by full name, or the types themselves."""

SKLEARN_PARTS = frozenset(
    {
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Matern",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.multiclass._ConstantPredictor",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
"""Reviewed: each holds arrays and numbers, and none calls anything on load."""


def type_name(kind: str | type) -> str:
    """Return the full name of a type, as skops writes it."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"


def dumps(value: object) -> bytes:
    """Return a skops file of an object; other names and order each time (see ``canonical``)."""
    import skops.io

    data: bytes = skops.io.dumps(value)
    return data


def untrusted(data: bytes, trusted: Trusted = (), source: str = "the file") -> list[str]:
    """Return the sorted types in a skops file that neither skops, nor this list, nor ``trusted`` know.

    Raises
    ------
    UntrustedError
        When it is not a skops file that this skops can read.
    """
    import skops.io

    names = {type_name(kind) for kind in trusted}
    try:
        found = skops.io.get_untrusted_types(data=data)
    except (BadZipFile, KeyError, ValueError, TypeError) as error:
        raise UntrustedError(
            f"{source} is not a model file that this skops can read: {error}; save it again"
        ) from error
    return [name for name in found if name not in SKLEARN_PARTS | names]


def audit(data: bytes, trusted: Trusted, source: str) -> None:
    """Refuse a file with types that are not trusted, before any object is made.

    Raises
    ------
    UntrustedError
        Naming the file, the types and the remedy.
    """
    found = untrusted(data, trusted, source)
    if found:
        raise UntrustedError(
            f"{source} holds types that could run code on load: {', '.join(found)}; "
            f"if you know where the file comes from and what they do, pass trusted={_listed(found)}"
        )


def load(data: bytes, trusted: Trusted, source: str) -> Any:
    """Return the object of an audited skops file.

    Raises
    ------
    UntrustedError
        As :func:`audit`; also when a type's module is not installed here.
    """
    import skops.io

    audit(data, trusted, source)
    allowed = sorted(SKLEARN_PARTS | {type_name(kind) for kind in trusted})
    try:
        return skops.io.loads(data, trusted=allowed)
    except (ImportError, AttributeError) as error:
        raise UntrustedError(
            f"{source} needs a type that cannot be imported here ({error}); "
            "install the package that defines it, in the version that the bundle names"
        ) from error


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
