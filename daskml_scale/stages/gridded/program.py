"""What the steps on a grid need around a block, and their values on it. No I/O: blocks are loaded by the caller.

Backwards through the steps, every variable learns how far beyond the block it must be known (its halo);
forwards, each is computed on exactly that. At the edge of the cube nothing lies beyond: kernels see NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daskml_scale.spec.steps_grid import Anomalies, GridLag, GridStep, Lead, Reach, Window

from . import kernels
from .kernels import Span

Load = Callable[[str, Sequence[Span]], np.ndarray]
"""(variable, region) -> float64 values of the region."""
Means = Callable[[str, str, Sequence[Span]], np.ndarray]
"""(variable, kind, region) -> climatology (groups, ...) of the region's space."""


@dataclass(frozen=True)
class Program:
    """Steps over a grid.

    Attributes
    ----------
    steps : tuple of GridStep
    dims : tuple of str
    sizes : tuple of int
        Of the grid, after coarsening.
    time : str
        The dimension of time.
    """

    steps: tuple[GridStep, ...]
    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    time: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the steps make, in order."""
        return tuple(name for step in self.steps for name in step.outputs())

    @cached_property
    def halos(self) -> dict[str, Reach]:
        """Variable, made or read -> how far beyond a block it must be known."""
        found: dict[str, Reach] = {name: {} for name in self.outputs}
        for position in range(len(self.steps) - 1, -1, -1):
            step = self.steps[position]
            needed: Reach = {}
            for name in step.outputs():
                needed = _widest(needed, found[name])
            around = _added(needed, step.reach(self.time))
            for name in step.of:
                found[name] = _widest(found.get(name, {}), around)
        return found

    @property
    def sources(self) -> tuple[str, ...]:
        """Variables of the cube that the steps read, in order."""
        made: set[str] = set()
        found: dict[str, None] = {}
        for step in self.steps:
            found.update(dict.fromkeys(name for name in step.of if name not in made))
            made.update(step.outputs())
        return tuple(found)

    @property
    def learnt(self) -> tuple[tuple[str, str], ...]:
        """(variable, kind) of every climatology, in order."""
        pairs = [(name, step.by) for step in self.steps if isinstance(step, Anomalies) for name in step.of]
        return tuple(dict.fromkeys(pairs))

    def around(self, region: Sequence[Span], halo: Reach) -> list[Span]:
        """Return a region with a halo, within the grid."""
        found = []
        for dim, size, (start, stop) in zip(self.dims, self.sizes, region, strict=True):
            before, after = halo.get(dim, (0, 0))
            found.append((max(0, start - before), min(size, stop + after)))
        return found

    def run(
        self, region: Sequence[Span], load: Load, means: Means, groups: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return what the steps make on a region: name -> float64 of its shape.

        Parameters
        ----------
        groups : mapping of kind to ndarray of int, shape (times,)
            Of all times of the cube.
        """
        spans = {name: self.around(region, halo) for name, halo in self.halos.items()}
        known = {name: load(name, spans[name]) for name in self.sources}
        for step in self.steps:
            for name in step.of:
                known.update(self._made(step, name, known[name], spans, means, groups))
        found = {}
        for name in self.outputs:
            inner = [slice(a - first, b - first) for (a, b), (first, _) in zip(region, spans[name], strict=True)]
            found[name] = known[name][tuple(inner)]
        return found

    def _made(
        self,
        step: GridStep,
        name: str,
        values: np.ndarray,
        spans: Mapping[str, list[Span]],
        means: Means,
        groups: Mapping[str, np.ndarray],
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield what one step makes of one variable, each on the span that is asked of it."""
        time, own = self.dims.index(self.time), spans[name]
        match step:
            case Anomalies():
                output = f"{name}_anomaly"
                span = spans[output]
                inner = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(span, own, strict=True))
                rows = groups[step.by][slice(*span[time])]
                found = kernels.anomalies(np.moveaxis(values[inner], time, 0), rows, means(name, step.by, span))
                yield output, np.moveaxis(found, 0, time)
            case GridLag() | Lead():
                back, word = (-1, "lag") if isinstance(step, GridLag) else (1, "lead")
                for number in step.lags if isinstance(step, GridLag) else step.leads:
                    output = f"{name}_{word}_{number}"
                    inner = tuple(
                        slice(None) if axis == time else slice(a - first, b - first)
                        for axis, ((a, b), (first, _)) in enumerate(zip(spans[output], own, strict=True))
                    )
                    moved = np.moveaxis(values[inner], time, 0)
                    found = kernels.shifted(moved, back * number, own[time], spans[output][time])
                    yield output, np.moveaxis(found, 0, time)
            case Window():
                output = f"{name}_{step.stat}_near"
                sizes = {self.dims.index(dim): cells for dim, cells in step.size.items()}
                yield output, kernels.window(values, sizes, own, spans[output], step.stat)
            case _:
                yield name, values


def _widest(one: Reach, other: Reach) -> Reach:
    return {
        dim: tuple(map(max, one.get(dim, (0, 0)), other.get(dim, (0, 0))))  # type: ignore[misc]
        for dim in {**one, **other}
    }


def _added(one: Reach, other: Reach) -> Reach:
    found = {}
    for dim in {**one, **other}:
        before, after = one.get(dim, (0, 0))
        more_before, more_after = other.get(dim, (0, 0))
        found[dim] = (before + more_before, after + more_after)
    return found
