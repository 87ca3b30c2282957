"""On a real pseudo-terminal, and with real signals: bars, Ctrl-C, a second Ctrl-C, SIGTERM."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daskml_scale.storage.ledger import Ledger

from .conftest import PROGRAM, write_workflow

MANY = 10_000
"""Units that no test lives to see the end of."""
SHOW, HIDE = b"\x1b[?25h", b"\x1b[?25l"


class Terminal:
    """A command on a pseudo-terminal of 24 x 80 that it controls."""

    def __init__(self, *words: str) -> None:
        self.leader, follower = os.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*PROGRAM, *words], stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(follower)
        self.shown = b""

    def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.shown.decode(errors="replace")[-2000:]
            if select.select([self.leader], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self.leader, 65536)
                except OSError:  # the process closed its side
                    break

    def press(self, key: bytes) -> None:
        os.write(self.leader, key)

    def end(self) -> int:
        self.until(lambda: False)
        os.close(self.leader)
        return self.process.wait(30)

    def last_screen(self) -> str:
        """What stands below the last redraw, without escapes."""
        text = self.shown.split(b"\x1b[2K")[-1].decode()
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


def committed(folder: Path) -> int:
    return len(Ledger(str(folder / "runs/tiny/table.ledger")).records())


def test_a_terminal_gets_bars_that_give_way_to_the_table(folder):
    terminal = Terminal("run", "tiny.yaml")
    assert terminal.end() == 0
    assert terminal.shown.index(HIDE) < terminal.shown.index("━".encode()) < terminal.shown.index(SHOW)
    screen = terminal.last_screen().splitlines()
    assert screen[0].split() == ["stage", "units", "reused", "seconds", "rows/s"]
    assert screen[-1].startswith("Results: runs/tiny")
    assert "━" not in terminal.last_screen()


def test_ctrl_c_stops_keeps_what_is_committed_and_the_same_command_goes_on(folder, status):
    write_workflow(folder, rows=MANY, chunk=1)
    terminal = Terminal("run", "tiny.yaml")
    terminal.until(lambda: committed(folder) > 5)
    terminal.press(b"\x03")
    assert terminal.end() == 130
    kept = committed(folder)
    screen = terminal.last_screen()
    assert 5 < kept < MANY
    assert SHOW in terminal.shown
    assert "━" in screen or "table" in screen
    assert "Stopped. Committed work stays in" in screen
    assert "Go on with: daskml-scale run tiny.yaml" in screen
    assert "Traceback" not in terminal.shown.decode()
    assert status("tiny")["state"] == "interrupted"
    again = subprocess.run([*PROGRAM, "run", "tiny.yaml", "--dry-run", "--json"], stdout=-1, check=True)
    assert json.loads(again.stdout)[0]["reused"] == kept


def test_sigterm_is_like_ctrl_c(folder, status):
    write_workflow(folder, rows=MANY, chunk=1)
    process = subprocess.Popen([*PROGRAM, "run", "tiny.yaml", "--json"], stdout=-1, stderr=-1, text=True)
    end = time.monotonic() + 60
    while committed(folder) < 5 and time.monotonic() < end:
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert '"state": "interrupted"' in out
    assert out.count("\n") == 1
    assert "stopping; what is committed stays" in err
    assert "Go on with: daskml-scale run tiny.yaml" in err
    assert status("tiny")["state"] == "interrupted"


SLOW_TO_CLEAN_UP = """
import sys, time
from daskml_scale.cli import main
from daskml_scale.errors import InterruptedRunError
from daskml_scale.runs.attend import attend
from daskml_scale.runs.live import view
from daskml_scale.runs.records import Registry

registry = Registry()
run = registry.create(workflow="w", source="", store="s", cluster="none", command=["run"], cwd="/", now=time.time())

def work(sink):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60 if "slowly" in sys.argv else 0)

try:
    attend(registry, run, work, view(sys.stderr))
except InterruptedRunError:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once_and_is_recorded(folder, status, number):
    process = subprocess.Popen([sys.executable, "-c", SLOW_TO_CLEAN_UP, "slowly"], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert (status("w-")["state"], status("w-")["exit_code"]) == ("interrupted", 130)


def test_hanging_up_stops_like_sigterm_however_often_it_comes(folder, status):
    process = subprocess.Popen([sys.executable, "-c", SLOW_TO_CLEAN_UP], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "cleaning\n")
    assert "Traceback" not in err
    assert status("w-")["state"] == "interrupted"


def test_a_closed_terminal_ends_the_run_as_interrupted(folder, status):
    write_workflow(folder, rows=MANY, chunk=1)
    terminal = Terminal("run", "tiny.yaml")
    terminal.until(lambda: committed(folder) > 5)
    os.close(terminal.leader)
    assert terminal.process.wait(60) == 130
    assert status("tiny")["state"] == "interrupted"


def test_one_signal_lets_the_work_clean_up(folder, status):
    process = subprocess.Popen([sys.executable, "-c", SLOW_TO_CLEAN_UP], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "cleaning\n")
    assert status("w-")["state"] == "interrupted"


def test_a_signal_that_the_caller_ignores_stays_ignored(folder):
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{SLOW_TO_CLEAN_UP}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "cleaning\n")


NOISY = """
import os, subprocess, sys
from daskml_scale.runs.attend import only_results
with only_results(sys.argv[1] == "json"):
    print("a library prints")
    os.write(1, b"a C library prints\\n")
    subprocess.run([sys.executable, "-c", "print('a worker prints')"])
print("the result")
"""


def test_what_libraries_and_workers_print_does_not_reach_stdout(folder):
    done = subprocess.run([sys.executable, "-c", NOISY, "json"], capture_output=True, text=True, check=True)
    assert done.stdout == "the result\n"
    assert all(f"{who} prints" in done.stderr for who in ("a library", "a C library", "a worker"))
    plain = subprocess.run([sys.executable, "-c", NOISY, "table"], capture_output=True, text=True, check=True)
    assert plain.stderr == ""
