"""``python -m benchmarks.peers``: build the peers that need versions of their own, each in an environment of its own.

Peers that share our versions (joblib, scikit-learn, xarray, pandas, Optuna, plain Dask) are installed with the tests.
The others get a folder under ``.venv-peers``. The command prints the environment variables by which the benchmarks find
them; a peer that is not there is left out of the tables, and never guessed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import inference, storage

FOLDER = Path(__file__).parent.parent / ".venv-peers"


@dataclass(frozen=True)
class Peer:
    """An environment: what is installed, and what its path is told by."""

    name: str
    packages: tuple[str, ...]
    variable: str
    beside: bool = False
    """Whether the packages go beside ours (a folder on the import path) instead of into an interpreter of their own."""


PEERS = (
    Peer("ray", ("ray[data]", "zarr", "scikit-learn", "threadpoolctl", "psutil"), inference.RAY),
    Peer("cubed", ("cubed", "numcodecs"), storage.CUBED),
    Peer(
        "dask-ml", ("dask-ml", "dask-glm", "multipledispatch", "sparse", "numba", "llvmlite"), "PYTHONPATH", beside=True
    ),
)


def build(peer: Peer, folder: Path) -> str:
    """Install a peer and return the line that tells the benchmarks where it is."""
    place = folder / peer.name
    if peer.beside:
        _pip(sys.executable, "install", "--quiet", "--no-deps", "--upgrade", "--target", str(place), *peer.packages)
        return f"export {peer.variable}={place}{os.pathsep}${peer.variable}"
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin" / "python"
    _pip(str(python), "install", "--quiet", *peer.packages)
    return f"export {peer.variable}={python}"


def _pip(python: str, *words: str) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *words], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build all, or those that are named, and print how they are found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PEER", help=", ".join(peer.name for peer in PEERS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - {peer.name for peer in PEERS}):
        parser.error(f"no peer {unknown[0]}; there are {', '.join(peer.name for peer in PEERS)}")
    lines = [build(peer, options.folder) for peer in PEERS if peer.name in (options.names or peer.name)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
