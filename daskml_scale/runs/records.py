"""The run registry: one SQLite file in the user's data directory, one row per run and per stage of a run.

It answers *what ran, where, how far did it get, how did it end*. It is not needed to continue a
run: that is the ledgers' part, so a lost registry loses history and no work. Only the command line
and a run's own process touch it, workers never do.

Every write of a running run carries the epoch under which it was started; a process that was taken
for dead and replaced cannot write any more. ``lost`` is never stored: it is computed from an expired
lease, or from a process that this machine has no more. All times are passed in (seconds since the epoch).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from daskml_scale.errors import CancelledRunError, ConflictError, UsageError

from .costs import Cost
from .process import gone
from .queue import before, next_to_start
from .rows import HOLD, NONE_YET, QUEUE_HOLD, fenced, not_one, noted, put_stages, record, row_of, running, turns_of
from .schema import COSTS, EVENTS, RUNS, STAGES, RegistryFile
from .state import LIVE, RunRecord, StageRecord, home, run_id

START_GRACE = 60.0
"""Seconds that a queued run waits for its process to start before it counts as lost."""


class Registry(RegistryFile):
    """The registry of one user. Opened on first use; a read of a registry that is not there finds no runs.

    Parameters
    ----------
    path : Path, optional
        The SQLite file; ``registry.db`` in ``home()`` by default.

    Raises
    ------
    StoreError
        From every method: no permission, full disk, a damaged file, a file of a newer version.
    """

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path or home() / "registry.db")

    def create(
        self,
        *,
        workflow: str,
        source: str,
        store: str,
        cluster: str,
        command: Sequence[str],
        cwd: str,
        now: float,
        detached: bool = False,
        owner: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        queue: str = "",
        most: int = 0,
        priority: int = 0,
        key: str | None = None,
        stages: Sequence[StageRecord] = (),
        given: str = "",
    ) -> RunRecord:
        """Insert a queued run under a new id; return the run that has ``key``, if there is one already.

        ``detached`` gives it a log file under ``home``; ``stages`` are what is planned of it; ``given`` is the id of a
        run that was entered in another registry.
        """
        for attempt in range(1000):
            name = given or run_id(workflow, now, attempt)
            log = str(self.path.parent / "runs" / name / "log.txt") if detached else ""
            made = RunRecord(
                id=name, workflow=workflow, source=source, store=store, cluster=cluster, command=tuple(command),
                cwd=cwd, state="queued", epoch=0, lease_until=now + START_GRACE, host="", pid=0, created=now,
                started=None, finished=None, exit_code=None, message="", log=log, summary={}, owner=owner,
                labels=dict(labels or {}), options=dict(options or {}), queue=queue or cluster, most=most,
                priority=priority, key=key, stages=tuple(stages),
            )  # fmt: skip
            try:
                with self._write() as connection:
                    connection.execute(RUNS.insert().values(**row_of(made)))
                    put_stages(connection, name, stages)
                    noted(connection, name, 0, now, "queued")
            except sa.exc.IntegrityError:
                if key is not None and (taken := self.keyed(key, now=now)) is not None:
                    return taken
                continue
            return made
        raise ConflictError(f"{self.path}: a thousand runs of {workflow} began in the same second")

    def keyed(self, key: str, *, now: float) -> RunRecord | None:
        """Return the run that was submitted under an idempotency key."""
        if self._absent():
            return None
        with self._read() as connection:
            row = connection.execute(RUNS.select().where(RUNS.c.key == key)).mappings().one_or_none()
        return None if row is None else record(row, (), now)

    def requeue(self, run: RunRecord, *, now: float) -> bool:
        """Let a queued run that never got a process wait for one again; False when that is not so any more."""
        waits = (RUNS.c.id == run.id, RUNS.c.epoch == run.epoch, RUNS.c.state == "queued")
        with self._write() as connection:
            change = RUNS.update().where(*waits).values(lease_until=now + START_GRACE, pid=0, host="")
            return connection.execute(change).rowcount == 1

    def attached(self, run: RunRecord, *, host: str, pid: int) -> None:
        """Note the process of a queued run that was just started, unless it was quicker to say so itself."""
        waits = (RUNS.c.id == run.id, RUNS.c.epoch == run.epoch, RUNS.c.state == "queued", RUNS.c.pid == 0)
        with self._write() as connection:
            connection.execute(RUNS.update().where(*waits).values(host=host, pid=pid))

    def take_turn(self, run: RunRecord, *, host: str, pid: int, now: float) -> RunRecord | int:
        """Start a queued run if it is its turn; else keep it waiting and return how many runs are before it.

        Raises
        ------
        ConflictError
            When it is queued no more: somebody cancelled it, or another process took it.
        """
        with self._read() as connection:  # many wait: who has nothing to write takes no lock
            turns, mine = turns_of(connection, run, now)
        fresh = mine is not None and mine["pid"] == pid and mine["lease_until"] > now + QUEUE_HOLD / 2
        if fresh and run.id not in next_to_start(turns, now):
            return before(turns, run.id)
        with self._write() as connection:
            turns, mine = turns_of(connection, run, now)
            if mine is not None:
                ahead = before(turns, run.id)
                said = f"waits for its turn: {ahead} before it on {run.queue}" if ahead else "waits for its store"
                values: dict[str, Any] = {"lease_until": now + QUEUE_HOLD, "host": host, "pid": pid, "message": said}
                if chosen := run.id in next_to_start(turns, now):
                    values = running(run, host, pid, now)
                    connection.execute(STAGES.delete().where(STAGES.c.run == run.id))  # what was planned; it tells now
                    noted(connection, run.id, values["epoch"], now, "running", f"process {pid} on {host}")
                connection.execute(RUNS.update().where(RUNS.c.id == run.id).values(**values))
                return replace(run, **values) if chosen else ahead
        found = self.get(run.id, now=now)
        if found.state == "cancelled":
            raise CancelledRunError(f"run {run.id} was cancelled before its turn")
        raise ConflictError(f"run {run.id} cannot be started: it is {found.state} (epoch {found.epoch})")

    def start(self, run: RunRecord, *, host: str, pid: int, now: float) -> RunRecord:
        """Take a queued or lost run: the next epoch, running, leased.

        Raises
        ------
        ConflictError
            If another process took it first, or it already ended.
        """
        values = running(run, host, pid, now)
        over = sa.true() if gone(run.host, run.pid, run.started) else RUNS.c.lease_until < now
        free = sa.or_(RUNS.c.state == "queued", sa.and_(RUNS.c.state == "running", over))
        with self._write() as connection:
            change = RUNS.update().where(RUNS.c.id == run.id, RUNS.c.epoch == run.epoch, free).values(**values)
            if connection.execute(change).rowcount == 1:
                noted(connection, run.id, values["epoch"], now, "running", f"process {pid} on {host}")
                return replace(run, **values)
        found = self.get(run.id, now=now)
        raise ConflictError(f"run {run.id} cannot be started: it is {found.state} (epoch {found.epoch})")

    def beat(
        self,
        run: str,
        epoch: int,
        *,
        now: float,
        stages: Sequence[StageRecord] | None = None,
        message: str = "",
        costs: Sequence[Cost] = (),
    ) -> bool:
        """Extend the lease, and replace stages and costs if given, in one transaction; False when fenced off."""
        with self._write() as connection:
            return fenced(connection, run, epoch, {"lease_until": now + HOLD, "message": message}, stages, costs)

    def finish(
        self,
        run: str,
        epoch: int,
        *,
        now: float,
        state: str,
        exit_code: int,
        message: str = "",
        summary: dict[str, Any] | None = None,
        stages: Sequence[StageRecord] | None = None,
        costs: Sequence[Cost] = (),
    ) -> bool:
        """Write the end of a run; False when fenced off."""
        values = {
            "state": state, "exit_code": exit_code, "message": message, "finished": now, "lease_until": now,
            "summary": json.dumps(summary or {}),
        }  # fmt: skip
        with self._write() as connection:
            if done := fenced(connection, run, epoch, values, stages, costs):
                noted(connection, run, epoch, now, state, message)
        return done

    def mirrored(
        self,
        run: str,
        *,
        now: float,
        values: Mapping[str, Any],
        stages: Sequence[StageRecord] | None = None,
        costs: Sequence[Cost] = (),
    ) -> bool:
        """Note how a run stands whose runner is elsewhere; False when it has ended, and then nothing is changed."""
        with self._write() as connection:
            mine = (RUNS.c.id == run, RUNS.c.state.in_((*LIVE, "lost")))
            before = connection.execute(sa.select(RUNS.c.epoch, RUNS.c.state).where(*mine)).one_or_none()
            if before is None:
                return False
            if before.state == "lost":  # it was found again
                connection.execute(RUNS.update().where(*mine).values(state="queued"))
            changed = {**values, "lease_until": now + HOLD}
            if changed.get("state", before.state) != before.state:
                noted(connection, run, before.epoch, now, changed["state"], changed.get("message", ""))
            return fenced(connection, run, before.epoch, changed, stages, costs)

    def get(self, ref: str | None = None, *, now: float) -> RunRecord:
        """Return a run with its stages, by id or by a prefix that only it has; the newest without one.

        Raises
        ------
        UsageError
            If there is none, or more than one.
        """
        if self._absent():
            raise UsageError(NONE_YET)
        query = sa.select(RUNS).order_by(RUNS.c.created.desc(), RUNS.c.id.desc())
        if ref:
            query = query.where(RUNS.c.id.startswith(ref, autoescape=True))
        with self._read() as connection:
            rows = connection.execute(query.limit(6)).mappings().all()
            exact = [row for row in rows if row["id"] == ref] or (rows if ref else rows[:1])
            if len(exact) == 1:
                listed = STAGES.select().where(STAGES.c.run == exact[0]["id"]).order_by(STAGES.c.position)
                return record(exact[0], connection.execute(listed).mappings().all(), now)
            known = connection.execute(sa.select(RUNS.c.id)).scalars().all()
        raise UsageError(not_one(ref, [row["id"] for row in exact], known))

    def list(
        self, *, now: float, limit: int | None = None, labels: Mapping[str, str] | None = None, owner: str | None = None
    ) -> list[RunRecord]:
        """Return the newest runs first, each with its stages; only those with these labels, of this owner."""
        if self._absent():
            return []
        query = RUNS.select().order_by(RUNS.c.created.desc(), RUNS.c.id.desc()).limit(limit)
        for name, value in (labels or {}).items():
            query = query.where(sa.func.json_extract(RUNS.c.labels, f'$."{name}"') == value)
        if owner is not None:
            query = query.where(RUNS.c.owner == owner)
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
            wanted = STAGES.select().order_by(STAGES.c.position)
            if limit is not None:
                wanted = wanted.where(STAGES.c.run.in_([row["id"] for row in rows]))
            of: dict[str, list[sa.RowMapping]] = {}
            for stage in connection.execute(wanted).mappings():
                of.setdefault(stage["run"], []).append(stage)
        return [record(row, of.get(row["id"], ()), now) for row in rows]

    def alive(self, *, now: float) -> Sequence[RunRecord]:
        """Return the runs that are queued or running, without their stages; lost ones say so."""
        if self._absent():
            return []
        with self._read() as connection:
            rows = connection.execute(RUNS.select().where(RUNS.c.state.in_(LIVE))).mappings()
            return [record(row, (), now) for row in rows]

    def costs(self) -> Sequence[Cost]:
        """Return what the stages of all runs cost, and their start-ups."""
        if self._absent():
            return []
        with self._read() as connection:
            return [Cost(**row) for row in connection.execute(COSTS.select()).mappings()]

    def events(self, run: str) -> Sequence[dict[str, Any]]:
        """Return what happened to a run, oldest first: time, epoch, state, message."""
        if self._absent():
            return []
        query = sa.select(EVENTS.c.time, EVENTS.c.epoch, EVENTS.c.state, EVENTS.c.message).where(EVENTS.c.run == run)
        with self._read() as connection:
            return [dict(row) for row in connection.execute(query.order_by(EVENTS.c.seq)).mappings()]

    def remove(self, runs: Sequence[str]) -> int:
        """Forget runs that have ended or are lost; return how many there were. The caller knows that none is alive."""
        with self._write() as connection:
            for table in (STAGES, COSTS, EVENTS):
                connection.execute(table.delete().where(table.c.run.in_(runs)))
            return connection.execute(RUNS.delete().where(RUNS.c.id.in_(runs))).rowcount
