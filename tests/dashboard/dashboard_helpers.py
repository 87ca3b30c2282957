"""What the dashboard tests share: real schedulers, random events, waiting without sleeping blindly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from distributed import Client, LocalCluster
from hypothesis import settings
from hypothesis import strategies as st

from daskml_scale import events
from daskml_scale.dashboard.progress import Progress, fold

QUICK = settings(max_examples=60, deadline=None)
"""Of property tests: a busy machine is no failure."""
NAMES = st.sampled_from(["ingest", "features", "<b>x</b>"])
COUNTS = st.integers(0, 50)
TIMES = st.floats(0, 1e6)
STATES = st.sampled_from(["ok", "failed", "interrupted"])


def eventually(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return the first true answer of ``look``; fail when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not true within {seconds} s, the last answer was {found!r}"
        time.sleep(0.05)
    return found


def fetch(url: str) -> str:
    with urlopen(url, timeout=20) as answer:
        return answer.read().decode()


def fetch_json(url: str) -> Any:
    return json.loads(fetch(url))


@contextmanager
def live(**kwargs: Any) -> Iterator[tuple[Client, str]]:
    """Start a cluster without the page; give a client and the base URL of its dashboard."""
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            **kwargs,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client, f"http://127.0.0.1:{cluster.scheduler.http_server.port}"


@contextmanager
def scheduler_process(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a scheduler with the preload in a process of its own; give it and its address."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    command = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": '["daskml_scale.dashboard.preload"]'}
    with (folder / "scheduler.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--scheduler-file", str(file)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: file.exists() and file.stat().st_size and process.poll() is None)
        yield process, json.loads(file.read_text())["address"]
    finally:
        process.kill()
        process.wait()


def dashboard_of(client: Client) -> str:
    return f"http://127.0.0.1:{client.scheduler_info()['services']['dashboard']}"


def stage_events(run: str = "r") -> st.SearchStrategy[events.Event]:
    base = {"time": TIMES, "run": st.just(run), "stage": NAMES}
    return st.one_of(
        st.builds(
            events.RunStarted,
            time=TIMES,
            run=st.just(run),
            workflow=st.just("w"),
            store=st.just("s"),
            stages=st.lists(st.tuples(NAMES, st.just("kind")), unique_by=lambda pair: pair[0]).map(tuple),
        ),
        st.builds(events.StageStarted, **base, stage_kind=st.just("ingest")),
        st.builds(events.StagePlanned, **base, units=COUNTS, reused=COUNTS, later=COUNTS),
        st.builds(events.UnitsCommitted, **base, units=COUNTS, failed=COUNTS, rows=COUNTS, seconds=st.floats(0, 9)),
        st.builds(
            events.StageFinished,
            **base,
            state=STATES,
            seconds=st.floats(0, 9),
            units=COUNTS,
            reused=COUNTS,
            rows=COUNTS,
        ),
        st.builds(events.Warned, **base, message=st.text(max_size=9)),
        st.builds(
            events.RunFinished,
            time=TIMES,
            run=st.just(run),
            state=st.sampled_from(["succeeded", "failed"]),
            seconds=st.floats(0, 9),
            exit_code=st.just(0),
        ),
    )


def folded(*stream: events.Event) -> Progress:
    progress = Progress()
    for event in stream:
        progress = fold(progress, event)
    return progress
