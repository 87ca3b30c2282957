"""The project's errors: one tree, each leaf with an exit code and a retry policy.

A message names what was found, what was expected, and the remedy. ``str(error)`` is the
whole text shown to a user; a traceback is only for defects. This module imports nothing.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    FAILED = 1
    """The work failed, or more bad rows than ``max_bad``."""
    USAGE = 2
    """Wrong arguments or a bad specification; nothing was started."""
    CONFLICT = 3
    """Another run holds the store, or the state does not allow the verb."""
    PARTIAL = 4
    """Done, with quarantined rows within ``max_bad``."""
    LOST = 5
    """The runner's lease expired: its process is gone."""
    CANCELLED = 6
    INTERRUPTED = 130
    """Ctrl-C."""


class DaskMLError(Exception):
    """Base of every error raised on purpose.

    Attributes
    ----------
    exit_code : Exit
        What the command line returns.
    transient : bool
        Whether the same call may succeed later without a change of input.
    """

    exit_code: Exit = Exit.FAILED
    transient: bool = False


class SpecError(DaskMLError, ValueError):
    """A workflow, cluster or step specification is wrong. Nothing was started or written.

    Parameters
    ----------
    message : str
        What is wrong, with the value found and the remedy.
    file : str, optional
        The file as the user named it.
    line : int, optional
        1-based line in ``file``.
    path : str, optional
        Dotted key path, for example ``stages.features.steps[2].as_of.tolerance``.
    """

    exit_code = Exit.USAGE

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, path: str | None = None
    ) -> None:
        self.message, self.file, self.line, self.path = message, file, line, path
        where = f"{file}:{line}" if file and line else file
        super().__init__(": ".join(part for part in (where, path, message) if part))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_spec_error, (self.message, self.file, self.line, self.path)

    def at(self, *, file: str | None = None, line: int | None = None, path: str | None = None) -> SpecError:
        """Return the same error with the missing parts of its position filled in."""
        return SpecError(self.message, file=self.file or file, line=self.line or line, path=self.path or path)

    def below(self, path: str) -> SpecError:
        """Return the same error with its key path below another one."""
        inner = f".{self.path}" if self.path and not self.path.startswith("[") else self.path or ""
        return SpecError(self.message, file=self.file, line=self.line, path=path + inner)


def _rebuild_spec_error(message: str, file: str | None, line: int | None, path: str | None) -> SpecError:
    return SpecError(message, file=file, line=line, path=path)


class UsageError(DaskMLError, ValueError):
    """Wrong arguments to a verb or a function."""

    exit_code = Exit.USAGE


class PlanError(DaskMLError, ValueError):
    """The plan cannot be carried out: misaligned chunks, too little memory, missing input."""

    exit_code = Exit.USAGE


class StoreError(DaskMLError, OSError):
    """A store cannot be read or written, or holds something that is not ours."""


class ConflictError(DaskMLError):
    """Another run holds the store, or the state does not allow the request."""

    exit_code = Exit.CONFLICT


class CancelledRunError(ConflictError):
    """Somebody cancelled the run; committed work stays."""

    exit_code = Exit.CANCELLED


class ClusterError(DaskMLError):
    """A cluster did not start or is gone; the work itself is not to blame."""

    transient = True


class UnitsFailedError(DaskMLError):
    """Units failed for good; everything else was committed."""


class ValidationFailedError(DaskMLError):
    """A rule of a ``validate`` stage does not hold."""


class DriftError(ValidationFailedError):
    """Predicted rows, or predictions, are further from those of training than a limit allows."""


class UntrustedError(DaskMLError):
    """A model file would run code on load and no trust was given."""

    exit_code = Exit.USAGE


class InterruptedRunError(DaskMLError):
    """Ctrl-C or a termination signal; committed work stays."""

    exit_code = Exit.INTERRUPTED
