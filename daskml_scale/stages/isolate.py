"""Find the rows that a function refuses: call it on the batch, and on halves of what fails. Pure.

One bad row must not cost its batch, and a batch without one must cost one call. What fails though its first half did
not is known to hold a bad row in the second: that one is halved without a call. Errors that are not a row's fault (a
missing file, no memory, our own refusals) are raised as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from daskml_scale.errors import DaskMLError

REASONS = 20
"""Reasons kept, in row order; the rest is counted."""
GIVE_UP = 100
"""Bad rows of one unit that are looked for one by one, where ``max_bad`` does not allow more."""
NOT_A_ROWS_FAULT = (DaskMLError, MemoryError, OSError)
REFUSED = re.compile(r"ValueError: Input \S+ contains (NaN|infinity)")
"""What scikit-learn says of a matrix with missing or infinite values that an estimator cannot take."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


@dataclass
class BadRows:
    """Rows of one unit that cannot be predicted.

    Attributes
    ----------
    limit : int
        More bad rows than this fail the unit.
    status : dict of row to status
    reasons : dict of row to text
        Of the first :data:`REASONS` rows of each kind of call.
    """

    limit: int
    status: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, row: int, status: int, reason: str) -> None:
        """Note one bad row.

        Raises
        ------
        DaskMLError
            When there are more than ``limit``: then it is not about single rows.
        """
        self.status[row] = status
        if len(self.reasons) < 2 * REASONS:
            self.reasons[row] = " ".join(_ADDRESS.sub("0x...", reason).split())[:200]
        if len(self.status) > self.limit:
            first = min(self.reasons)
            if not self.limit:
                raise DaskMLError(f"row {first} of the batch cannot be predicted: {self.reasons[first]}")
            raise DaskMLError(
                f"more than {self.limit} rows of one batch cannot be predicted; "
                f"first: row {first} of it: {self.reasons[first]}"
            )

    def first(self, offset: int) -> list[tuple[int, int, str]]:
        """Return (row, status, reason) of the first bad rows, rows counted from ``-offset``."""
        return [(offset + row, self.status[row], self.reasons[row]) for row in sorted(self.reasons)[:REASONS]]


def isolate(
    function: Callable[[int, int], np.ndarray], rows: np.ndarray, status: int, bad: BadRows
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Call ``function`` on all rows, and on halves where it fails, down to single rows.

    Parameters
    ----------
    function : callable (start, stop) -> array of shape (stop - start, ...)
        Positions into ``rows``.
    rows : ndarray of int
        Row numbers, for the report.
    status : int
        Given to the rows on which the function fails.
    bad : BadRows
        Receives them.

    Returns
    -------
    list of (rows, values)
        In order; one entry when nothing failed.
    """
    done: list[tuple[np.ndarray, np.ndarray]] = []
    left = [(0, len(rows), -1)] if len(rows) else []
    while left:
        start, stop, before = left.pop()
        middle = (start + stop) // 2
        if before == len(bad.status) and stop - start > 1:  # nothing bad was found in the half before it
            left += [(middle, stop, before), (start, middle, -1)]
            continue
        try:
            values = np.asarray(function(start, stop))
        except NOT_A_ROWS_FAULT:
            raise
        except Exception as error:
            if stop - start == 1:
                bad.add(int(rows[start]), status, f"{type(error).__name__}: {error}")
                continue
            left += [(middle, stop, len(bad.status)), (start, middle, -1)]
            continue
        if values.shape[:1] != (stop - start,):
            raise DaskMLError(f"{stop - start} rows went in and an array of shape {values.shape} came out")
        done.append((rows[start:stop], values))
    return done
