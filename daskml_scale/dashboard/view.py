"""What the page shows, as plain data: columns of the bars and the table, and escaped HTML of the rest.

Pure and without Bokeh, so that it can be tested as text. Names come from users: whatever ends in HTML
goes through ``html.escape``, whatever ends on Bokeh's canvas through ``plain``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from daskml_scale.dashboard.board import Runs
from daskml_scale.dashboard.progress import Progress, StageProgress
from daskml_scale.events import Scaled, Warned
from daskml_scale.html import escape

SHARES = ("reused", "committed", "failed", "todo", "later")
COLORS = ("#8fb9dd", "#3a9d6e", "#d1495b", "#e3e5e8", "#f1f2f4")
LABELS = ("reused", "committed", "failed", "to do", "expected later")

STATES = {
    "waiting": "#8a9099",
    "running": "#2f7fc1",
    "ok": "#2e8b5e",
    "succeeded": "#2e8b5e",
    "failed": "#c5384b",
    "partial": "#b7791f",
    "interrupted": "#b7791f",
    "cancelled": "#8a9099",
}

TABLE = ("stage", "kind", "state", "units", "reused", "committed", "failed", "rows", "wall", "kernel", "why")

_MUTED = "opacity:.65"


def duration(seconds: float) -> str:
    """Return a time span for people: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def pace(rate: float) -> str:
    """Return units per second, minute or hour for people; empty when unknown."""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if rate * factor >= 1:
            return f"{rate * factor:,.0f}/{unit}" if rate * factor >= 100 else f"{rate * factor:.3g}/{unit}"
    return ""


def plain(text: str) -> str:
    """Return text that Bokeh's canvas shows as it is: its TeX delimiters are broken up."""
    for mark in ("$$", r"\(", r"\["):
        text = text.replace(mark, f"{mark[0]}\u200b{mark[1]}")
    return text


def shares(stage: StageProgress) -> tuple[float, ...]:
    """Return the parts of a stage's bar in the order of ``SHARES``; they sum to 1."""
    if not stage.total:
        return (0.0, 1.0, 0.0, 0.0, 0.0) if stage.state == "ok" else (0.0, 0.0, 0.0, 1.0, 0.0)
    todo = stage.units - stage.done - stage.failed
    return tuple(part / stage.total for part in (stage.reused, stage.done, stage.failed, todo, stage.later))


def label(stage: StageProgress, now: float) -> str:
    """Return what stands beside a stage's bar: done of total, state, rate, time left."""
    if stage.state == "waiting" and not stage.total:
        return "waiting"
    parts = [f"{stage.ready:,} / {stage.total:,}"]
    if stage.state != "running":
        parts.append(stage.state)
    if stage.failed:
        parts.append(f"{stage.failed:,} failed")
    if stage.finished and not stage.units and stage.reused:
        parts.append("all reused")
    elif stage.finished:
        parts.append(duration(stage.wall))
    if stage.state == "running":
        parts.append(pace(stage.rate(now)) or "running")
        eta = stage.eta(now)
        parts += [] if eta is None else [f"{duration(eta)} left"]
    return "  ·  ".join(parts)


def bars(progress: Progress, now: float) -> dict[str, list[Any]]:
    """Return the columns of the bars, first stage on top: ``y``, ``name``, ``label`` and ``SHARES``."""
    data: dict[str, list[Any]] = {key: [] for key in ("y", "name", "label", *SHARES)}
    for index, stage in enumerate(progress.stages):
        data["y"].append(-index)
        data["name"].append(stage.name if len(stage.name) <= 40 else stage.name[:39] + "…")
        data["label"].append(label(stage, now))
        for key, share in zip(SHARES, shares(stage), strict=True):
            data[key].append(round(share, 5))
    return data


def table(progress: Progress, now: float) -> dict[str, list[Any]]:
    """Return the columns of the table, named as in ``TABLE``; numbers of waiting stages are ``None``."""
    rows: list[tuple[Any, ...]] = []
    for stage in progress.stages:
        why = stage.message or ", ".join(f"{reason} {units:,}" for reason, units in stage.reasons.items())
        if stage.state == "waiting":
            numbers: tuple[Any, ...] = (None,) * 5 + ("", "")
        else:
            numbers = (stage.total, stage.reused, stage.done, stage.failed, stage.rows)
            numbers += (duration(stage.elapsed(now)), duration(stage.seconds) if stage.seconds else "")
        rows.append((stage.name, stage.kind, stage.state, *numbers, why))
    return {name: [row[i] for row in rows] for i, name in enumerate(TABLE)}


def pill(state: str) -> str:
    """Return a state as a small coloured HTML label."""
    color = STATES.get(state, "#8a9099")
    return (
        f"<span style='background:{color};color:#fff;border-radius:9px;padding:1px 9px;font-size:12px'>"
        f"{escape(state)}</span>"
    )


def header(progress: Progress | None, runs: Runs, now: float, workers: int, backlog: Mapping[str, Any] | None) -> str:
    """Return the HTML at the top of the page; without a run it says how to get one."""
    scheduler = [f"{workers:,} worker{'' if workers == 1 else 's'}"]
    if backlog is not None and backlog["units"]:
        seconds = backlog["seconds"]
        work = "" if seconds is None else f" ({duration(seconds)} of work)"
        scheduler.append(f"{backlog['units']:,} units in the backlog{work}")
    if progress is None:
        hint = "No workflow has reported to this scheduler yet. Start one with <code>daskml-scale run</code>."
        return f"<div style='font-size:15px'>{hint} <span style='{_MUTED}'>{escape(scheduler[0])}</span></div>"
    over = sum(stage.finished for stage in progress.stages)
    facts = [f"run {progress.run}" if progress.run else "without a run id"]
    facts.append(f"{over} of {len(progress.stages) + progress.hidden} stages done")
    if progress.started:
        facts.append(f"started {_clock(progress.started)}")
        facts.append(duration(progress.elapsed(now)))
    facts += scheduler
    quiet = now - progress.updated
    if not progress.finished and progress.updated and quiet > 60:
        facts.append(f"no event for {duration(quiet // 60 * 60)}")
    title = progress.workflow or "Python session"
    percent = round(100 * progress.fraction)
    message = f"<div style='margin-top:4px'>{escape(progress.message)}</div>" if progress.message else ""
    return (
        f"<div style='display:flex;align-items:center;gap:10px'>"
        f"<span style='font-size:20px;font-weight:600'>{escape(title)}</span>{pill(progress.state)}"
        f"<span style='font-size:15px'>{percent} %</span></div>"
        f"<div style='margin-top:3px;{_MUTED}'>{escape('  ·  '.join(facts))}</div>{message}"
        f"{_others(progress, runs)}"
    )


def legend() -> str:
    """Return the HTML that explains the colours of the bars."""
    swatch = "display:inline-block;width:11px;height:11px;border-radius:2px;margin:0 5px -1px 14px"
    items = "".join(
        f"<span style='{swatch};background:{color};box-shadow:inset 0 0 0 1px rgba(128,128,128,.35)'></span>{name}"
        for name, color in zip(LABELS, COLORS, strict=True)
    )
    return f"<div style='display:flex;align-items:baseline'>{heading('Stages')}<span>{items}</span></div>"


def heading(text: str) -> str:
    """Return a section's title."""
    return f"<span style='font-size:14px;font-weight:600'>{escape(text)}</span>"


def decisions(scaled: Sequence[Scaled], last: int = 8) -> str:
    """Return the last scaling decisions as HTML, newest first."""
    lines = [
        (
            _clock(event.time),
            f"{event.worker_class}: {event.have:,} → {event.need:,}"
            + (f" ({event.starting:,} starting)" if event.starting else ""),
            f"backlog {duration(event.backlog_seconds)}; {event.rule + ': ' if event.rule else ''}{event.reason}",
        )
        for event in reversed(scaled[-last:])
    ]
    return heading("Scaling") + _lines(lines, "No scaling decision yet.")


def warnings(warned: Sequence[Warned], last: int = 8) -> str:
    """Return the last warnings as HTML, newest first."""
    lines = [(_clock(event.time), event.stage, event.message) for event in reversed(warned[-last:])]
    return heading("Warnings") + _lines(lines, "None.")


def _lines(lines: Sequence[tuple[str, str, str]], nothing: str) -> str:
    if not lines:
        return f"<div style='margin-top:4px;{_MUTED}'>{nothing}</div>"
    rows = "".join(
        f"<tr style='vertical-align:top'><td style='{_MUTED};padding-right:10px;white-space:nowrap'>{escape(when)}</td>"
        f"<td style='padding-right:10px;max-width:18em;overflow-wrap:anywhere'>{escape(what)}</td>"
        f"<td style='overflow-wrap:anywhere'>{escape(why)}</td></tr>"
        for when, what, why in lines
    )
    return f"<table style='margin-top:4px;border-spacing:0'>{rows}</table>"


def _others(progress: Progress, runs: Runs, last: int = 8) -> str:
    others = [item for item in reversed(runs.runs) if item.run != progress.run][:last]
    if not others:
        return ""
    links = "  ".join(
        f"<a style='color:#2f7fc1' href='?run={quote(item.run, safe='')}'>"
        f"{escape(item.workflow or 'Python session')} {escape(item.run)}</a> "
        f"<span style='{_MUTED}'>{escape(item.state)}</span>&emsp;"
        for item in others
    )
    return f"<div style='margin-top:3px'><span style='{_MUTED}'>Other runs:</span> {links}</div>"


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))


def unknown(run: str) -> str:
    """Return what to say about a run that was asked for and is not here."""
    return f"Run {escape(run[:60])} has not reported to this scheduler; this is the newest one."
