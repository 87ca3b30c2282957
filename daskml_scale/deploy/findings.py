"""What a check finds, and the checks that several backends share: versions that must be the same everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SAME = ("dask", "distributed", "cloudpickle", "msgpack", "numpy", "zarr", "xarray", "scikit-learn", "daskml-scale")
"""Packages whose versions driver, scheduler and workers share."""
SKEW_SECONDS = 2.0
"""Difference between clocks from which on ages and durations of different machines mislead."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
        A word or two.
    ok : bool
    said : str
        What was found.
    remedy : str
        What to do; empty when it is as it should be, or when ``said`` tells it.
    """

    what: str
    ok: bool
    said: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def versions() -> dict[str, str]:
    """Return what runs in this process: Python and the packages that must be the same everywhere."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def compare_versions(
    here: Mapping[str, str], scheduler: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Yield one finding per package that differs, or one that all are the same. Pure.

    Parameters
    ----------
    here, scheduler : mapping of package to version
        ``python`` may differ in its last number.
    workers : mapping of address to such a mapping
    """
    same = True
    for name in here:
        places = {"here": here, "the scheduler": scheduler, **workers}
        found = {place: _comparable(name, listed.get(name, "none")) for place, listed in places.items()}
        if len(set(found.values())) > 1:
            same = False
            others = {place: text for place, text in found.items() if text != found["here"]}
            place, text = next(iter(others.items()))
            more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
            yield Finding(
                name,
                False,
                f"{found['here']} here, {text} at {place}{more}",
                f"install the same {name} everywhere",
            )
    if same:
        yield Finding("versions", True, f"Python {here['python']} and {len(here) - 1} packages are the same everywhere")


def _comparable(name: str, text: str) -> str:
    return text.rpartition(".")[0] if name == "python" and text != "none" else text
