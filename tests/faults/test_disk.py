"""A commit that fails stops the run, says why, and loses nothing: with space again, the same command finishes."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import UNITS, Draw, assert_equal, durable

from daskml_scale.testing.faults import calls, executions

STAGE = "table"
ALL = {"scan", *(f"rows/{number:08d}" for number in range(UNITS))}
DELAY = 0.02

moments = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults_long) for seed in range(1, 20))]
)


@pytest.fixture
def mount() -> Iterator[Callable[[Path], Path]]:
    """Mount file systems of 4 MiB in memory."""
    mounted: list[Path] = []

    def mount_at(folder: Path) -> Path:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount_at
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to its last byte; return the file that does."""
    filler = folder / ".filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    assert os.statvfs(folder).f_bavail == 0
    return filler


def stopped(run) -> set[str]:
    """Check the end of a run that could not commit; return what it had committed."""
    ended = run.end()
    assert ended.code == 1, ended.said
    assert "Traceback" not in ended.said, ended.said
    assert str(run.store) in ended.said
    assert "full" in ended.said or "too large" in ended.said
    kept = durable(run.store, STAGE)
    begun = {noted.unit for noted in calls(run.folder)}
    assert kept < begun, "nothing was in flight"
    assert begun < ALL, "the run went on to its end without being able to commit"
    return kept


def finished(run, whole, kept):
    """Check the run after it: it does what was not committed, once, and the store is as ever."""
    ended = run.end()
    assert ended.code == 0, ended.said
    assert executions(run.folder, STAGE) == dict.fromkeys(ALL - kept, 1)
    assert_equal(run.store, whole)


@moments
def test_a_full_disk_under_the_ledger(seed, table, whole, start, mount, tmp_path):
    draw = Draw("ledger disk", seed)
    disk = mount(tmp_path / "store" / f"{STAGE}.ledger")
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS // 2))
    reached = run.reach()
    filler = fill(disk)
    run.go(reached)
    kept = stopped(run)
    filler.unlink()
    finished(start(table, STAGE, cluster="none"), whole, kept)


@moments
def test_a_full_disk_under_the_whole_store(seed, table, whole, start, mount, tmp_path):
    """Now the units cannot write either: they fail, and their failure cannot be committed."""
    draw = Draw("store disk", seed)
    disk = mount(tmp_path / "store")
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS // 2))
    reached = run.reach()
    filler = fill(disk)
    run.go(reached)
    kept = stopped(run)
    filler.unlink()
    finished(start(table, STAGE, cluster="none"), whole, kept)


@moments
@pytest.mark.usefixtures("unmeasured")
def test_a_driver_that_may_not_write_any_more(seed, table, whole, start):
    """The size limit of its files is set to 0 in mid-run: the same failure, also where one cannot mount."""
    draw = Draw("limit", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS // 2))
    reached = run.reach()
    driver = psutil.Process(run.process.pid)
    driver.rlimit(resource.RLIMIT_FSIZE, (0, driver.rlimit(resource.RLIMIT_FSIZE)[1]))
    run.go(reached)
    kept = stopped(run)
    finished(start(table, STAGE, cluster="none"), whole, kept)
