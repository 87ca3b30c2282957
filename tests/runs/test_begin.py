"""Runs that start up: only so many at once, a dead one makes room, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from daskml_scale.runs import begin

STARTS = (
    "import os, sys, time\n"
    "from daskml_scale.runs.begin import arrived\n"
    "open(sys.argv[1], 'w').close()\n"
    "while not os.path.exists('go'): time.sleep(0.02)\n"
    "arrived()\n"
    "while not os.path.exists('end'): time.sleep(0.02)\n"
)


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "daskml_scale.runs.begin", str(folder / "starts"), "-c", STARTS, name]
    return subprocess.Popen(words, cwd=folder)


def eventually(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_so_many_start_up_at_once_and_the_others_when_these_have_arrived(tmp_path):
    names = [f"run-{number}" for number in range(begin.places() + 2)]
    started = [start(tmp_path, name) for name in names]
    try:
        began = lambda: sum((tmp_path / name).exists() for name in names)  # noqa: E731
        eventually(lambda: began() == begin.places())
        time.sleep(2 * begin.LOOK_SECONDS)
        assert began() == begin.places()  # the others wait
        (tmp_path / "go").touch()
        eventually(lambda: began() == len(names))
        assert all(process.poll() is None for process in started)  # those that arrived are at work
    finally:
        (tmp_path / "end").touch()
        assert [process.wait(60) for process in started] == [0] * len(names)


def test_one_that_dies_while_it_starts_up_makes_room(tmp_path):
    first = [start(tmp_path, f"run-{number}") for number in range(begin.places())]
    eventually(lambda: all((tmp_path / f"run-{number}").exists() for number in range(begin.places())))
    late = start(tmp_path, "late")
    try:
        first[0].send_signal(signal.SIGKILL)
        assert first[0].wait(60) == -signal.SIGKILL
        eventually((tmp_path / "late").exists)
    finally:
        (tmp_path / "go").touch()
        (tmp_path / "end").touch()
        assert [process.wait(60) for process in (*first[1:], late)] == [0] * len(first)


def test_nobody_waits_for_ever_and_a_folder_that_cannot_be_made_holds_nobody_up(tmp_path):
    taken = [begin.place(str(tmp_path)) for _ in range(begin.places())]
    assert None not in taken
    assert begin.awaited(str(tmp_path), longest=0.3) is None
    for descriptor in taken:
        os.close(descriptor or 0)
    free = begin.awaited(str(tmp_path))
    assert free is not None
    os.close(free)
    (tmp_path / "file").touch()
    assert begin.awaited(str(tmp_path / "file" / "starts")) is None


def test_the_bare_interpreter_imports_next_to_nothing(unmeasured):
    code = "import sys, daskml_scale.runs.begin; print(len(sys.modules), 'sqlalchemy' in sys.modules)"
    count, heavy = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {os.getcwd()!r}); {code}"],
        capture_output=True, text=True, check=True, env=unmeasured,
    ).stdout.split()  # fmt: skip
    assert (int(count) < 120, heavy) == (True, "False")
