"""Two laws of scaling, fitted to measured or simulated throughput. Pure.

Amdahl (1967): a share ``sigma`` of the work is serial. Gunther's universal scalability law (2007) adds ``kappa``, the
cost of every pair of workers keeping each other waiting, so throughput has a peak:
``X(N) = X(1) N / (1 + sigma (N - 1) + kappa N (N - 1))``; Amdahl's is the case ``kappa = 0``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daskml_scale.errors import UsageError


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law.

    Attributes
    ----------
    one : float
        Throughput of one worker.
    sigma, kappa : float
        Serial share; coherence cost per pair.
    error : float
        Largest relative error at the points of the fit.
    """

    one: float
    sigma: float
    kappa: float
    error: float = 0.0

    def throughput(self, workers: float) -> float:
        """Return work per second with so many workers."""
        pairs = workers * (workers - 1)
        return self.one * workers / (1 + self.sigma * (workers - 1) + self.kappa * pairs)

    def efficiency(self, workers: float) -> float:
        """Return the throughput per worker, in units of that of one."""
        return self.throughput(workers) / (workers * self.one)

    @property
    def most(self) -> float:
        """Number of workers beyond which throughput falls; infinite when it never does."""
        return math.sqrt((1 - self.sigma) / self.kappa) if self.kappa > 0 and self.sigma < 1 else math.inf

    @property
    def speed_up(self) -> float:
        """Highest throughput that any number of workers reaches, in units of that of one."""
        if math.isfinite(self.most):
            return self.throughput(max(1.0, self.most)) / self.one
        return 1 / self.sigma if self.sigma > 0 else math.inf


def fit(points: Sequence[tuple[float, float]], *, coherence: bool = True) -> Law:
    """Fit a law to (workers, throughput) by non-negative least squares of relative errors.

    ``N / X = (1 + sigma (N - 1) + kappa N (N - 1)) / X(1)`` is linear in its three unknowns.

    Parameters
    ----------
    points : sequence of (float, float)
        At least as many different numbers of workers as unknowns: three, or two without ``coherence``.
    coherence : bool
        Gunther's law, else Amdahl's.

    Raises
    ------
    UsageError
        When there are too few points.
    """
    import numpy as np
    from scipy.optimize import nnls

    unknowns = 3 if coherence else 2
    usable = [(n, x) for n, x in points if n > 0 and x > 0]
    if len({n for n, _ in usable}) < unknowns:
        raise UsageError(
            f"a fit needs {unknowns} different numbers of workers and there are {len({n for n, _ in usable})}"
        )
    workers, rate = np.array(usable, dtype=float).T
    terms = np.stack([np.ones_like(workers), workers - 1, workers * (workers - 1)][:unknowns], axis=1)
    found, _ = nnls(terms * (rate / workers)[:, None], np.ones_like(workers))
    if found[0] <= 0:  # all of it would be serial: one worker is as fast as many
        found[0] = 1e-12
    law = Law(float(1 / found[0]), float(found[1] / found[0]), float(found[2] / found[0]) if coherence else 0.0)
    errors = [abs(law.throughput(n) / x - 1) for n, x in usable]
    return Law(law.one, law.sigma, law.kappa, max(errors))
