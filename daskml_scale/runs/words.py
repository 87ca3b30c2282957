"""Numbers, durations, paths and commands as people read them. Pure text; knows no terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from daskml_scale.errors import UsageError

PROGRAM = "daskml-scale"
_DAY = 86400.0


def clock(seconds: float) -> str:
    """Return a duration as on a stop-watch: ``0:07``, ``12:05``, ``1:02:03``, ``3d 04:05``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def took(seconds: float) -> str:
    """Return a measured duration in words: ``0.4 s``, ``12 s``, ``3:20 min``, ``1:02:03 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{clock(seconds)} {'min' if seconds < 3600 else 'h'}" if seconds < _DAY else clock(seconds)


def speed(rate: float, unit: str = "") -> str:
    """Return a rate with two or three significant digits: ``4.1/s``, ``12/min``; empty when unknown."""
    if rate <= 0:
        return ""
    if rate < 0.1:
        return f"{rate * 60:.2g}{unit}/min"
    return f"{rate:,.0f}{unit}/s" if rate >= 99.5 else f"{rate:.3g}{unit}/s" if rate >= 9.95 else f"{rate:.2g}{unit}/s"


def plural(count: int, word: str) -> str:
    """Return ``1 unit``, ``2,000 units``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def size(count: int) -> str:
    """Return bytes for reading: ``12 MiB``; ``-`` for none."""
    if count <= 0:
        return "-"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:,.0f} {unit}"


def planned(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the plan of a run, rows of a dry run in their JSON form, in one line."""
    listed = list(rows)
    memory = max((row["memory"] for row in listed), default=0)
    later = ", ".join(row["name"] for row in listed if row["note"].startswith("planned "))
    parts = [
        f"{plural(sum(row['units'] for row in listed), 'unit')} to run",
        f"{sum(row['reused'] for row in listed):,} reused",
        f"up to {size(memory)} at a time" if memory else "",
        f"planned when it runs: {later}" if later else "",
    ]
    return f"{plural(len(listed), 'stage')}: " + ", ".join(filter(None, parts))


def near(path: str, here: str) -> str:
    """Return a path below ``here`` as seen from there, any other as it is."""
    return path[len(here) + 1 :] if here and path.startswith(here.rstrip("/") + "/") else path


def command(words: Iterable[str], cwd: str = "", here: str = "") -> str:
    """Return a command line to copy, with the change of directory if it is to run elsewhere than ``here``."""
    line = shlex.join([PROGRAM, *words])
    return f"cd {shlex.quote(cwd)} && {line}" if cwd and cwd != here else line


def first_comment(source: str) -> str:
    """Return the first comment of a YAML text: what its author says it is."""
    found = (line.partition("#") for line in source.splitlines() if line.startswith("#") or " #" in line)
    return next((comment.strip(" #") for _, _, comment in found if comment.strip(" #")), "")


def labelled(texts: Sequence[str]) -> dict[str, str]:
    """Return labels from ``NAME=VALUE`` texts.

    Raises
    ------
    UsageError
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--label {text}: write NAME=VALUE, such as --label team=weather")
        if name in found:
            raise UsageError(f"--label {text}: {name} is given twice, first as {found[name]!r}")
        found[name] = value
    return found
