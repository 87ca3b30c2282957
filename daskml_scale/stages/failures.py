"""Why a stage failed, from the records of its failed units: an error to raise.

What our own code refuses on a worker (a column that is not there, an expression that does not fit, a full
disk) is raised again as the same error, in one line. Anything else is raised with the kernel's traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

from daskml_scale import errors
from daskml_scale.errors import DaskMLError, SpecError, UnitsFailedError
from daskml_scale.plan.records import Record


def failure(stage: str, failed: Sequence[Record], total: int) -> DaskMLError:
    """Return the error that a stage with failed units ends with.

    Parameters
    ----------
    stage : str
    failed : sequence of Record
        At least one.
    total : int
        Units of the pass.
    """
    first = min(failed, key=lambda record: record.unit)
    kind, _, message = first.error.partition("\n")[0].partition(": ")
    known = getattr(errors, kind, None)
    if not (isinstance(known, type) and issubclass(known, DaskMLError)):
        return UnitsFailedError(
            f"{stage}: {len(failed)} of {total} units failed; the rest is committed. First: {first.unit}: {first.error}"
        )
    if known is DaskMLError:
        known = UnitsFailedError
    if known is not SpecError and not message.startswith(f"{stage}: "):
        message = f"{stage}: {message}"
    more = f" ({len(failed):,} of {total:,} units failed; the rest is committed)" if len(failed) < total else ""
    return known(message + more)
