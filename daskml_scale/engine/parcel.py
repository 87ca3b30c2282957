"""A kernel as it travels to workers: pickled, with the Python that it comes from.

Code that is pickled by value (functions of a notebook, of files beside a workflow) is bytecode, which another Python
cannot run: it would end by a signal, and look like a unit that kills its worker.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from daskml_scale.errors import UsageError

PYTHON = b"%d.%d" % sys.version_info[:2]
BY_VALUE = b"_make_function"
"""In every pickle of code: cloudpickle's function that makes one. Its own name is in others, too."""


def packed(content: Any) -> bytes:
    """Return something for workers."""
    import cloudpickle

    return PYTHON + b" " + bytes(cloudpickle.dumps(content))


def unpacked(parcel: bytes) -> Any:
    """Return what was packed, perhaps by another Python.

    Raises
    ------
    UsageError
        When it is code that only the other one can run.
    """
    made, _, data = parcel.partition(b" ")
    if made != PYTHON and BY_VALUE in data:
        raise UsageError(
            f"code of yours was sent from Python {made.decode()} to a worker that has {PYTHON.decode()} and cannot run "
            "it; use the same Python here and on the workers"
        )
    return pickle.loads(data)
