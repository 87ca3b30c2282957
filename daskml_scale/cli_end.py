"""How a command line ends: its result on stdout, what went wrong in one line, and the exit code.

With ``--json`` an error is one document on stdout too. A traceback means a defect. A stdout that is full or
that nobody reads any more is told apart from what the command did.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daskml_scale.errors import DaskMLError, Exit, InterruptedRunError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from daskml_scale.runs.state import RunRecord

PROGRAM = "daskml-scale"


class RunEndedError(Exception):
    """A run that is in the registry ended with an error: its cause."""

    def __init__(self, run: RunRecord) -> None:
        self.run = run


class _OutputError(Exception):
    """The result could not be written to stdout."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def print_result(data: Any, as_json: bool, draw: Callable[[], RenderableType]) -> None:
    """Print a result on stdout: as one JSON document, or drawn."""
    if as_json:
        put(json.dumps(data))
        return
    from daskml_scale.runs import show

    picture = draw()
    _written(lambda: show.write(picture, sys.stdout))


def print_names(found: Iterable[tuple[str, Path]], as_json: bool) -> None:
    """Print named files, each with the first comment in it."""
    from daskml_scale.runs import show
    from daskml_scale.runs.words import first_comment

    rows = [(name, str(path), first_comment(path.read_text(errors="replace"))) for name, path in found]
    data = [{"name": name, "file": file, "description": text} for name, file, text in rows]
    print_result(data, as_json, lambda: show.columns(("name", "file", "description"), rows))


def put(line: str) -> None:
    """Print one line on stdout."""
    _written(lambda: click.echo(line))


def say(text: str) -> None:
    """Print a text on stderr, if anybody is there."""
    with suppress(OSError):
        click.echo(text, err=True)


def ended(error: BaseException, as_json: bool) -> int:
    """Tell what went wrong and return the exit code."""
    from daskml_scale.runs.lease import failure

    if isinstance(error, _OutputError) or _by_click(error):
        return _unwritten(error.error if isinstance(error, _OutputError) else error)
    run = error.run if isinstance(error, RunEndedError) else None
    error = error.__cause__ if isinstance(error, RunEndedError) and error.__cause__ else error
    text, code, error = _told(error)
    say(text)
    if as_json:
        try:
            put(json.dumps(failure(error, run)))
        except _OutputError as unwritten:
            _unwritten(unwritten.error)
    return code


def _told(error: BaseException) -> tuple[str, int, BaseException]:
    """Return the text for people, the exit code, and the error as one of ours where click raised it."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), Exit.USAGE, UsageError("no verb is given")
        case click.ClickException():
            where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else PROGRAM
            text = error.format_message()
            return f"error: {text}\nSee: {where} --help", Exit.USAGE, UsageError(text)
        case click.Abort() | KeyboardInterrupt():
            return "stopped", Exit.INTERRUPTED, KeyboardInterrupt()
        case InterruptedRunError():
            return str(error), error.exit_code, error
        case DaskMLError():
            return f"error: {error}", error.exit_code, error
    traceback.print_exception(error)
    text = f"error: {type(error).__name__}: {error}\nThis is a defect in {PROGRAM}; please report it."
    return text, Exit.FAILED, error


def _by_click(error: BaseException) -> bool:
    """Return whether click itself, which prints help and the like, could not write."""
    frames = traceback.extract_tb(error.__traceback__) if isinstance(error, OSError) else []
    return bool(frames) and Path(frames[-1].filename).parent == Path(click.__file__).parent


def _unwritten(error: BaseException) -> int:
    """End without a result: who read it has gone, or there is no room for it."""
    if not isinstance(error, OSError) or error.errno != errno.EPIPE:
        say(f"error: stdout cannot be written: {getattr(error, 'strerror', None) or error}")
    with suppress(OSError, ValueError):  # Python writes what it still holds when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILED


def _written(write: Callable[[], None]) -> None:
    try:
        write()
        sys.stdout.flush()
    except OSError as error:
        raise _OutputError(error) from error
