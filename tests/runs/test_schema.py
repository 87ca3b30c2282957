"""The registry's schema: the one before is brought forward, a newer one and a network disk are refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from daskml_scale.errors import StoreError
from daskml_scale.runs.records import Registry
from daskml_scale.runs.schema import SCHEMA_VERSION, refuse_network
from daskml_scale.runs.state import StageRecord

VERSION_1 = """
CREATE TABLE runs (
    id TEXT NOT NULL, workflow TEXT NOT NULL, source TEXT NOT NULL, store TEXT NOT NULL, cluster TEXT NOT NULL,
    command TEXT NOT NULL, cwd TEXT NOT NULL, state TEXT NOT NULL, host TEXT NOT NULL, message TEXT NOT NULL,
    log TEXT NOT NULL, summary TEXT NOT NULL, epoch INTEGER NOT NULL, pid INTEGER NOT NULL, exit_code INTEGER,
    lease_until FLOAT NOT NULL, created FLOAT NOT NULL, started FLOAT, finished FLOAT, PRIMARY KEY (id)
);
CREATE TABLE stages (
    run TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, position INTEGER NOT NULL,
    units INTEGER NOT NULL, done INTEGER NOT NULL, reused INTEGER NOT NULL, failed INTEGER NOT NULL,
    rows INTEGER NOT NULL, seconds FLOAT NOT NULL, rate FLOAT NOT NULL, eta FLOAT,
    PRIMARY KEY (run, name), FOREIGN KEY(run) REFERENCES runs (id)
);
INSERT INTO runs VALUES ('w-20010909-0000', 'w', 'w.yaml', '/s', 'local', '["submit", "w", "--sample", "0.5"]', '/',
    'succeeded', 'h', '', '', '{"state": "succeeded"}', 1, 7, 0, 1000000010.0, 1000000000.0, 1000000001.0,
    1000000010.0);
INSERT INTO stages VALUES ('w-20010909-0000', 'a', 'ingest', 'ok', 0, 3, 3, 0, 0, 30, 1.5, 0.0, NULL);
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A registry as the version before made it."""
    path = tmp_path / "registry.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    connection.close()
    return path


def test_a_registry_of_the_version_before_is_brought_forward_with_its_runs(old):
    registry = Registry(old)
    (run,) = registry.list(now=2e9)
    assert (run.state, run.owner, run.labels, run.key, run.priority) == ("succeeded", "", {}, None, 0)
    assert run.stages == (StageRecord("a", "ingest", "ok", 3, 3, 0, 0, 30, 1.5),)
    fresh = registry.create(
        workflow="w", source="", store="t", cluster="none", command=[], cwd="", now=1e9, key="k", labels={"a": "b"}
    )
    assert Registry(old).get(fresh.id, now=1e9) == fresh
    assert [event["state"] for event in registry.events(fresh.id)] == ["queued"]
    with sqlite3.connect(old) as connection:
        assert connection.execute("pragma user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


def test_a_migrated_registry_has_the_tables_of_a_new_one(old, tmp_path):
    new = Registry(tmp_path / "new" / "registry.db")
    new.create(workflow="w", source="", store="t", cluster="none", command=[], cwd="", now=1e9)
    Registry(old).list(now=1e9)
    assert tables(old) == tables(new.path)


def tables(path: Path) -> dict[str, set[tuple[str, str, int]]]:
    """Return table or index -> (column, type, whether it must be there)."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where name not like 'sqlite_%'")]
        found = {name: {row[1:4] for row in connection.execute(f"pragma table_info('{name}')")} for name in names}
    connection.close()
    return found


def test_processes_that_migrate_at_once_do_it_once(old):
    code = "import sys; from pathlib import Path; from daskml_scale.runs.records import Registry\n"
    code += "print(len(Registry(Path(sys.argv[1])).list(now=2e9)))"
    both = [subprocess.Popen([sys.executable, "-c", code, str(old)], stdout=-1, stderr=-1, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == ["1\n", "1\n"]


def test_a_migration_that_breaks_off_leaves_the_version_before(old, monkeypatch):
    from daskml_scale.runs import schema

    def broken(connection):
        schema._to_version_2(connection)
        raise OSError("no power")

    monkeypatch.setitem(schema._STEPS, 1, broken)
    with pytest.raises(StoreError, match="no power"):
        Registry(old).list(now=2e9)
    monkeypatch.undo()
    assert len(Registry(old).list(now=2e9)) == 1


def test_a_newer_registry_is_refused_with_a_remedy_and_left_alone(old):
    with sqlite3.connect(old) as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}; upgrade"):
        Registry(old).list(now=2e9)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs"])
def test_a_network_file_system_is_refused_with_advice(kind, tmp_path):
    mounts = [("/", "ext4"), (str(tmp_path), kind)]
    with pytest.raises(StoreError, match=rf"network file system \({kind} at {tmp_path}\).*set DASKML_SCALE_HOME"):
        refuse_network(tmp_path / "a" / "registry.db", mounts)
    refuse_network(tmp_path / "a" / "registry.db", [*mounts, (str(tmp_path / "a"), "xfs")])  # a local disk in it
    refuse_network(tmp_path.parent / "registry.db", mounts)
