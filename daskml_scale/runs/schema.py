"""The tables of the run registry, their versions, and what SQLite says in words that help.

A registry of an older version is brought forward when it is opened, in one transaction; one of a newer
version is left alone and refused. The file must lie on a disk of this machine: the locks that SQLite's
write-ahead log needs do not hold over a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from daskml_scale.errors import StoreError

SCHEMA_VERSION = 2
BUSY_SECONDS = 30.0
"""How long a write waits for another process's write."""
NETWORK = (
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "glusterfs",
    "fuse.glusterfs", "ceph", "fuse.ceph", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "davfs",
    "fuse.davfs", "panfs", "pvfs2", "orangefs",
)  # fmt: skip
"""Types of file systems that other machines write, too."""

_metadata = sa.MetaData()


def _columns(kind: type[sa.types.TypeEngine[Any]], names: str, *, null: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=null) for name in names.split()]


RUNS = sa.Table(
    "runs",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    *_columns(sa.Text, "workflow source store cluster command cwd state host message log summary"),
    *_columns(sa.Integer, "epoch pid"),
    *_columns(sa.Integer, "exit_code", null=True),
    *_columns(sa.Float, "lease_until created"),
    *_columns(sa.Float, "started finished", null=True),
    *_columns(sa.Text, "owner labels options queue"),
    *_columns(sa.Text, "key", null=True),
    *_columns(sa.Integer, "priority most"),
)
STAGES = sa.Table(
    "stages",
    _metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    *_columns(sa.Text, "kind state"),
    *_columns(sa.Integer, "position units done reused failed rows"),
    *_columns(sa.Float, "seconds rate"),
    *_columns(sa.Float, "eta", null=True),
)
COSTS = sa.Table(
    "costs",
    _metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    *_columns(sa.Float, "worker_seconds idle_seconds saved_seconds startup_seconds money"),
)
EVENTS = sa.Table(
    "events",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
    *_columns(sa.Text, "state message"),
    *_columns(sa.Integer, "epoch"),
    *_columns(sa.Float, "time"),
)
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS runs_by_time ON runs (created, id)",
    "CREATE INDEX IF NOT EXISTS runs_alive ON runs (state) WHERE state IN ('queued', 'running')",
    "CREATE UNIQUE INDEX IF NOT EXISTS runs_by_key ON runs (key) WHERE key IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS events_of_run ON events (run)",
)


def _to_version_2(connection: sa.Connection) -> None:
    """Owner, labels, options, queue and key of each run; costs; events. Old runs belong to nobody we know."""
    added = {
        "owner": "TEXT NOT NULL DEFAULT ''", "labels": "TEXT NOT NULL DEFAULT '{}'",
        "options": "TEXT NOT NULL DEFAULT '{}'", "queue": "TEXT NOT NULL DEFAULT ''", "key": "TEXT",
        "priority": "INTEGER NOT NULL DEFAULT 0", "most": "INTEGER NOT NULL DEFAULT 0",
    }  # fmt: skip
    for name, kind in added.items():
        connection.exec_driver_sql(f"ALTER TABLE runs ADD COLUMN {name} {kind}")


_STEPS: dict[int, Callable[[sa.Connection], None]] = {1: _to_version_2}
"""Version -> what brings a registry of that version to the next one."""


def opened(path: Path) -> sa.Engine:
    """Open a registry, made when absent and brought forward when older.

    Raises
    ------
    StoreError
        When it lies on a network file system, or a newer version wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_network(path, _mounts())
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _durable)
    with engine.connect() as connection:
        if _version(connection, path) != SCHEMA_VERSION:
            migrate(connection, path)
    return engine


class RegistryFile:
    """The file of a registry: opened on first use, read and written in transactions.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: sa.Engine | None = None

    def close(self) -> None:
        """Close the file's connections; the next use opens them again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _absent(self) -> bool:
        with explained(self.path):
            return not self.path.exists()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that holds the write lock from its start."""
        with explained(self.path), self._opened().connect() as connection:
            immediate(connection)
            yield connection
            connection.commit()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with explained(self.path), self._opened().connect() as connection:
            yield connection

    def _opened(self) -> sa.Engine:
        if self._engine is None:
            self._engine = opened(self.path)
        return self._engine


def migrate(connection: sa.Connection, path: Path) -> None:
    """Bring the tables to this version in one transaction; several processes may try at once.

    Raises
    ------
    StoreError
        When a newer version wrote them.
    """
    immediate(connection)
    version = _version(connection, path)  # again: another process may have been quicker
    for step in range(version, SCHEMA_VERSION) if version else ():
        _STEPS[step](connection)
    for table in _metadata.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
    for index in _INDEXES:
        connection.exec_driver_sql(index)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.commit()


def immediate(connection: sa.Connection) -> None:
    """Begin a transaction that writes: what it reads cannot change before it ends."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _version(connection: sa.Connection, path: Path) -> int:
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: the run registry has version {version}, this daskml-scale reads up to {SCHEMA_VERSION}; "
            "upgrade daskml-scale, or set DASKML_SCALE_HOME to another directory"
        )
    return version


def _durable(connection: DBAPIConnection, _: object) -> None:
    """Set the pragmas of a new connection: readers never wait for the writer, a commit survives power loss."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.cursor().execute(f"PRAGMA {pragma}")


def refuse_network(path: Path, mounts: Iterable[tuple[str, str]]) -> None:
    """Refuse a file that other machines may write, too.

    Parameters
    ----------
    mounts : iterable of (directory, type)
        The mounted file systems, in the order in which they were mounted.

    Raises
    ------
    StoreError
    """
    place = path.parent.resolve()
    holding = [(at, kind) for at, kind in mounts if place.is_relative_to(at)]
    at, kind = max(holding, key=lambda mount: len(Path(mount[0]).parts), default=("", ""))
    if kind in NETWORK:
        raise StoreError(
            f"{path}: the run registry cannot lie on a network file system ({kind} at {at}), where two machines may "
            "damage it; set DASKML_SCALE_HOME to a directory on a disk of this machine. Stores may lie there"
        )


def _mounts() -> list[tuple[str, str]]:
    """Return (directory, type) of the mounted file systems; none where the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    return [(words[1].replace("\\040", " "), words[2]) for words in fields if len(words) > 2]


@contextmanager
def explained(path: Path) -> Iterator[None]:
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
