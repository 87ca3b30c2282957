"""Rows of the run registry: runs to rows and back, and the changes that must be fenced.

Everything here happens inside a transaction of the registry (`records`), which is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa

from .costs import Cost
from .process import gone, there
from .queue import Turn
from .schema import COSTS, EVENTS, RUNS, STAGES
from .state import LIVE, RunRecord, StageRecord, state_at

HOLD = 15.0
"""Seconds that a heartbeat keeps a run alive."""
QUEUE_HOLD = 60.0
"""Seconds that a look at its turn keeps a waiting run alive."""
NONE_YET = "there are no runs yet; start one with: daskml-scale run WORKFLOW"
JSON = ("command", "summary", "labels", "options")
"""Columns that hold JSON."""
PLACE = "job"
"""Option of a run whose runner is a Job elsewhere: where, see `remote`."""
_TURN = ("id", "state", "queue", "store", "priority", "most", "created", "lease_until")


def running(run: RunRecord, host: str, pid: int, now: float) -> dict[str, Any]:
    """Return what changes of a run that a process takes."""
    return {
        "state": "running", "epoch": run.epoch + 1, "lease_until": now + HOLD, "host": host, "pid": pid,
        "started": now, "finished": None, "exit_code": None, "message": "",
    }  # fmt: skip


def fenced(
    connection: sa.Connection,
    run: str,
    epoch: int,
    values: Mapping[str, Any],
    stages: Sequence[StageRecord] | None,
    costs: Sequence[Cost],
) -> bool:
    """Change a live run of this epoch; False when there is none, and then nothing is changed."""
    mine = (RUNS.c.id == run, RUNS.c.epoch == epoch, RUNS.c.state.in_(LIVE))
    if connection.execute(RUNS.update().where(*mine).values(**values)).rowcount != 1:
        return False
    if stages is not None:
        connection.execute(STAGES.delete().where(STAGES.c.run == run))
        put_stages(connection, run, stages)
    if costs:
        connection.execute(COSTS.delete().where(COSTS.c.run == run))
        connection.execute(COSTS.insert(), [{**asdict(cost), "run": run} for cost in costs])
    return True


def turns_of(connection: sa.Connection, run: RunRecord, now: float) -> tuple[list[Turn], sa.RowMapping | None]:
    """Return the turns of all living runs, and the row of one if it still waits."""
    rows = connection.execute(RUNS.select().where(RUNS.c.state.in_(LIVE))).mappings().all()
    there = [row for row in rows if row["id"] == run.id or not gone(row["host"], row["pid"], row["started"])]
    turns = [Turn(**{name: row[name] for name in _TURN}) for row in there]
    # A clock that was set must not cost a run its own turn.
    turns = [replace(turn, lease_until=now + QUEUE_HOLD) if turn.id == run.id else turn for turn in turns]
    mine = next((row for row in there if row["id"] == run.id), None)
    waits = mine is not None and (mine["state"], mine["epoch"]) == ("queued", run.epoch)
    return turns, mine if waits else None


def put_stages(connection: sa.Connection, run: str, stages: Sequence[StageRecord]) -> None:
    """Insert the stages of a run that has none."""
    if stages:
        rows = [{"run": run, "position": n, **asdict(stage)} for n, stage in enumerate(stages)]
        connection.execute(STAGES.insert(), rows)


def noted(connection: sa.Connection, run: str, epoch: int, now: float, state: str, message: str = "") -> None:
    """Append to the history of a run."""
    connection.execute(EVENTS.insert().values(run=run, epoch=epoch, time=now, state=state, message=message))


def not_one(ref: str | None, matches: Sequence[str], known: Sequence[str]) -> str:
    """Return what is wrong with a reference that finds no run, or several."""
    if not known:
        return NONE_YET
    if matches:
        return f"{ref!r} is the beginning of more than one run: {', '.join(matches)}; write more of the id"
    near = get_close_matches(ref or "", known, n=1)
    return f"no run {ref!r}; " + (f"did you mean {near[0]}?" if near else "see: daskml-scale list")


def row_of(run: RunRecord) -> dict[str, Any]:
    """Return a run as a row of the table."""
    values = asdict(run)
    del values["stages"]
    return {**values, **{name: json.dumps(values[name]) for name in JSON}}


def record(row: sa.RowMapping, stages: Sequence[sa.RowMapping], now: float) -> RunRecord:
    """Return the run of a row with its stages, in the state that it has at ``now``."""
    values: dict[str, Any] = dict(row)
    values |= {name: json.loads(values[name]) for name in JSON}
    elsewhere = PLACE in values["options"] and values["epoch"] > 0  # no process of ours, and no lease
    values["state"] = values["state"] if elsewhere else state_at(values["state"], values["lease_until"], now)
    if values["state"] in LIVE and gone(values["host"], values["pid"], values["started"]):
        values["state"] = "lost"
    waits = row["state"] == "queued" and values["state"] == "lost"
    # On a busy machine its process may not have got to ask yet; it began before its lease ended.
    if waits and there(values["host"], values["pid"], values["lease_until"]):
        values["state"] = "queued"
    values["command"] = tuple(values["command"])
    hidden = ("run", "position")
    listed = tuple(StageRecord(**{key: stage[key] for key in stage if key not in hidden}) for stage in stages)
    return RunRecord(**values, stages=listed)
