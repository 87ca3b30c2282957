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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from daskml_scale.errors import ConflictError, StoreError, UsageError

from .process import gone
from .state import LIVE, RunRecord, StageRecord, home, run_id, state_at

SCHEMA_VERSION = 1
HOLD = 15.0
"""Seconds that a heartbeat keeps a run alive."""
START_GRACE = 60.0
"""Seconds that a queued run waits for its process to start before it counts as lost."""
BUSY_SECONDS = 10.0
"""How long a write waits for another process's write."""

_NONE_YET = "there are no runs yet; start one with: daskml-scale run WORKFLOW"
_metadata = sa.MetaData()


def _columns(kind: type[sa.types.TypeEngine[Any]], names: str, *, null: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=null) for name in names.split()]


_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    *_columns(sa.Text, "workflow source store cluster command cwd state host message log summary"),
    *_columns(sa.Integer, "epoch pid"),
    *_columns(sa.Integer, "exit_code", null=True),
    *_columns(sa.Float, "lease_until created"),
    *_columns(sa.Float, "started finished", null=True),
)
_stages = sa.Table(
    "stages",
    _metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    *_columns(sa.Text, "kind state"),
    *_columns(sa.Integer, "position units done reused failed rows"),
    *_columns(sa.Float, "seconds rate"),
    *_columns(sa.Float, "eta", null=True),
)


class Registry:
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
        self.path = path or home() / "registry.db"
        self._engine: sa.Engine | None = None

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
    ) -> RunRecord:
        """Insert a queued run under a new id. ``detached`` gives it a log file under ``home``."""
        for attempt in range(1000):
            name = run_id(workflow, now, attempt)
            log = str(self.path.parent / "runs" / name / "log.txt") if detached else ""
            record = RunRecord(
                id=name, workflow=workflow, source=source, store=store, cluster=cluster, command=tuple(command),
                cwd=cwd, state="queued", epoch=0, lease_until=now + START_GRACE, host="", pid=0, created=now,
                started=None, finished=None, exit_code=None, message="", log=log, summary={},
            )  # fmt: skip
            try:
                with self._write() as connection:
                    connection.execute(_runs.insert().values(**_row(record)))
            except sa.exc.IntegrityError:
                continue
            return record
        raise ConflictError(f"{self.path}: a thousand runs of {workflow} began in the same second")

    def start(self, run: RunRecord, *, host: str, pid: int, now: float) -> RunRecord:
        """Take a queued or lost run: the next epoch, running, leased.

        Raises
        ------
        ConflictError
            If another process took it first, or it already ended.
        """
        values: dict[str, Any] = {
            "state": "running", "epoch": run.epoch + 1, "lease_until": now + HOLD, "host": host, "pid": pid,
            "started": now, "finished": None, "exit_code": None, "message": "",
        }  # fmt: skip
        over = sa.true() if gone(run.host, run.pid, run.started) else _runs.c.lease_until < now
        free = sa.or_(_runs.c.state == "queued", sa.and_(_runs.c.state == "running", over))
        with self._write() as connection:
            change = _runs.update().where(_runs.c.id == run.id, _runs.c.epoch == run.epoch, free).values(**values)
            taken = connection.execute(change).rowcount == 1
        if not taken:
            found = self.get(run.id, now=now)
            raise ConflictError(f"run {run.id} cannot be started: it is {found.state} (epoch {found.epoch})")
        return replace(run, **values)

    def beat(
        self, run: str, epoch: int, *, now: float, stages: Sequence[StageRecord] | None = None, message: str = ""
    ) -> bool:
        """Extend the lease, and replace the stages if given, in one transaction; False when fenced off."""
        return self._fenced(run, epoch, {"lease_until": now + HOLD, "message": message}, stages)

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
    ) -> bool:
        """Write the end of a run; False when fenced off."""
        values = {
            "state": state, "exit_code": exit_code, "message": message, "finished": now, "lease_until": now,
            "summary": json.dumps(summary or {}),
        }  # fmt: skip
        return self._fenced(run, epoch, values, stages)

    def get(self, ref: str | None = None, *, now: float) -> RunRecord:
        """Return a run with its stages, by id or by a prefix that only it has; the newest without one.

        Raises
        ------
        UsageError
            If there is none, or more than one.
        """
        if self._absent():
            raise UsageError(_NONE_YET)
        query = sa.select(_runs).order_by(_runs.c.created.desc(), _runs.c.id.desc())
        if ref:
            query = query.where(_runs.c.id.startswith(ref, autoescape=True))
        with self._read() as connection:
            rows = connection.execute(query.limit(6)).mappings().all()
            exact = [row for row in rows if row["id"] == ref] or (rows if ref else rows[:1])
            if len(exact) == 1:
                found = exact[0]
                listed = _stages.select().where(_stages.c.run == found["id"]).order_by(_stages.c.position)
                return _record(found, connection.execute(listed).mappings().all(), now)
            known = connection.execute(sa.select(_runs.c.id)).scalars().all()
        raise UsageError(_not_one(ref, [row["id"] for row in exact], known))

    def list(self, *, now: float, limit: int | None = None) -> list[RunRecord]:
        """Return the newest runs first, each with its stages."""
        if self._absent():
            return []
        query = _runs.select().order_by(_runs.c.created.desc(), _runs.c.id.desc()).limit(limit)
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
            wanted = _stages.select().where(_stages.c.run.in_([row["id"] for row in rows]))
            stages = connection.execute(wanted.order_by(_stages.c.position)).mappings().all()
        return [_record(row, [stage for stage in stages if stage["run"] == row["id"]], now) for row in rows]

    def close(self) -> None:
        """Close the file's connections; the next use opens them again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _fenced(self, run: str, epoch: int, values: dict[str, Any], stages: Sequence[StageRecord] | None) -> bool:
        with self._write() as connection:
            # The fenced update comes first: it takes the write lock and decides whether the rest may happen.
            mine = (_runs.c.id == run, _runs.c.epoch == epoch, _runs.c.state.in_(LIVE))
            if connection.execute(_runs.update().where(*mine).values(**values)).rowcount != 1:
                return False
            if stages is not None:
                connection.execute(_stages.delete().where(_stages.c.run == run))
                if stages:
                    rows = [{"run": run, "position": n, **asdict(stage)} for n, stage in enumerate(stages)]
                    connection.execute(_stages.insert(), rows)
            return True

    def _absent(self) -> bool:
        with _explained(self.path):
            return not self.path.exists()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with _explained(self.path), self._opened().begin() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with _explained(self.path), self._opened().connect() as connection:
            yield connection

    def _opened(self) -> sa.Engine:
        if self._engine is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(
                sa.URL.create("sqlite", database=str(self.path)), connect_args={"timeout": BUSY_SECONDS}
            )
            sa.event.listen(engine, "connect", _durable)
            with engine.begin() as connection:
                self._ensure_schema(connection)
            self._engine = engine
        return self._engine

    def _ensure_schema(self, connection: sa.Connection) -> None:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: the run registry has version {version}, this daskml-scale reads up to {SCHEMA_VERSION}; "
                "upgrade daskml-scale, or set DASKML_SCALE_HOME to another directory"
            )
        if version < SCHEMA_VERSION:
            for table in _metadata.sorted_tables:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _durable(connection: DBAPIConnection, _: object) -> None:
    """Set the pragmas of a new connection: readers never wait for the writer, a commit survives power loss."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.cursor().execute(f"PRAGMA {pragma}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system report into one message with a remedy."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DBAPIError as error:
        raise StoreError(_explanation(path, error)) from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{path}: the run registry cannot be used ({error.strerror or error}); "
            "set DASKML_SCALE_HOME to a directory that you may write"
        ) from error


def _explanation(path: Path, error: sa.exc.DBAPIError) -> str:
    found = str(error.orig)
    remedies = {
        ("SQLITE_NOTADB", "SQLITE_CORRUPT"): f"move it away (mv '{path}' '{path}.damaged'); "
        "it holds the history of runs only, results and what a run can reuse lie in the stores",
        ("SQLITE_FULL",): "free some space, or set DASKML_SCALE_HOME to a directory on another disk",
        ("SQLITE_BUSY", "SQLITE_LOCKED"): f"another process has been writing it for {BUSY_SECONDS:.0f} s; try again",
        (
            "SQLITE_CANTOPEN",
            "SQLITE_READONLY",
            "SQLITE_PERM",
        ): "set DASKML_SCALE_HOME to a directory that you may write",
        ("SQLITE_IOERR",): "check the disk, or set DASKML_SCALE_HOME to a directory on another one",
    }
    code = getattr(error.orig, "sqlite_errorname", "")
    remedy = next(
        (text for codes, text in remedies.items() if code.startswith(codes)), "set DASKML_SCALE_HOME elsewhere"
    )
    return f"{path}: the run registry cannot be used ({found}); {remedy}"


def _not_one(ref: str | None, matches: Sequence[str], known: Sequence[str]) -> str:
    if not known:
        return _NONE_YET
    if matches:
        return f"{ref!r} is the beginning of more than one run: {', '.join(matches)}; write more of the id"
    near = get_close_matches(ref or "", known, n=1)
    return f"no run {ref!r}; " + (f"did you mean {near[0]}?" if near else "see: daskml-scale list")


def _row(record: RunRecord) -> dict[str, Any]:
    values = asdict(record)
    del values["stages"]
    return {**values, "command": json.dumps(record.command), "summary": json.dumps(record.summary)}


def _record(row: sa.RowMapping, stages: Sequence[sa.RowMapping], now: float) -> RunRecord:
    values: dict[str, Any] = dict(row)
    values["state"] = state_at(values["state"], values["lease_until"], now)
    if values["state"] == "running" and gone(values["host"], values["pid"], values["started"]):
        values["state"] = "lost"
    values["command"] = tuple(json.loads(values["command"]))
    values["summary"] = json.loads(values["summary"])
    hidden = ("run", "position")
    listed = tuple(StageRecord(**{key: stage[key] for key in stage if key not in hidden}) for stage in stages)
    return RunRecord(**values, stages=listed)
