"""What watching costs: three pages open against none, a first paint, large reports, Dask's task stream.

``python -m benchmarks.watching [--units 2000] [--rounds 5] [--json FILE]``

Runs with and without pages alternate, in pairs; 5 rounds take five minutes. "On" is: the driver publishes as that of a
large run does, and three pages are open. Pages are requests: what an open page asks for, once a second each, from one
other process, because three browsers on a small machine would measure the browsers. The first paint is a real
browser's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

import daskml_scale as dms
from daskml_scale import events
from daskml_scale.dashboard.plugin import install
from daskml_scale.dashboard.publish import publisher

from .machine import load, machine
from .watching_documents import fold_cost, large_run, report_cost

BROWSER = Path("/usr/bin/chromium")
BROWSERS = 3
WORKERS = 1 if (os.cpu_count() or 1) < 4 else 2
"""A core is left for driver, scheduler and the programs that stand for browsers, which run elsewhere in earnest."""
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "watched",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": WORKERS, "max": WORKERS}, "memory": "1GiB"}},
    "dashboard": {"listen": "127.0.0.1:0"},
}


def look(url: str, stop: Any, count: Any) -> None:
    """Ask for what an open page asks for, as often."""
    while not stop.is_set():
        for _ in range(BROWSERS):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=30) as answer:
                answer.read()
                count.value += 1
        stop.wait(1.0)


@contextlib.contextmanager
def open_pages(link: str, wanted: bool) -> Iterator[Any]:
    """Have pages open while the block runs; gives the counter of requests."""
    context = multiprocessing.get_context("spawn")
    stop, count = context.Event(), context.Value("q", 0)
    process = context.Process(target=look, args=(f"{link}workflow.json?page=1&run=&map=", stop, count), daemon=True)
    if wanted:
        process.start()
    try:
        yield count
    finally:
        stop.set()
        if wanted:
            process.join()


def square(item: int) -> int:
    """Work for some milliseconds."""
    until = time.perf_counter() + 0.01
    while time.perf_counter() < until:
        item = (item * 31 + 7) % 1_000_003
    return item


@contextlib.contextmanager
def telling(client: Any, wanted: bool) -> Iterator[None]:
    """Publish what the driver of a run of 100,000 units would: 400 units a second, each with its place."""
    if not wanted:
        yield
        return
    stop = threading.Event()

    def tell() -> None:
        with publisher(client) as sink:
            for event in large_run(100_000):
                sink(event)
            at = 0
            while not stop.wait(0.25):
                done = tuple(
                    events.Cell((at + n) % 10_000, 1, 0, 0, 0.01, f"rows/{at + n:08d}", "cpu-0", "new")
                    for n in range(100)
                )
                at += 100
                sink(events.UnitsCommitted(time=time.time(), run="large", stage="predict", units=100, cells=done))

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def one_run(client: Any, link: str, units: int, watched: bool) -> dict[str, float]:
    """Map over items; return seconds and the CPU seconds of the scheduler."""
    scheduler = psutil.Process(client.run_on_scheduler(os.getpid))
    with open_pages(link, watched) as count, telling(client, watched):
        if watched:
            while not count.value:
                time.sleep(0.05)
        before, began = scheduler.cpu_times(), time.perf_counter()
        dms.map(square, range(units), client=client)
        seconds, after = time.perf_counter() - began, scheduler.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return {"seconds": seconds, "scheduler_cpu": cpu, "requests": float(count.value)}


def on_and_off(units: int, rounds: int) -> dict[str, Any]:
    """Run the same with pages and without, alternately."""
    rows: list[dict[str, Any]] = []
    with dms.cluster(SPEC, adapt=False) as cluster, cluster.get_client() as client:
        install(client)
        link = cluster.dashboard_link.removesuffix("status")
        client.wait_for_workers(WORKERS)
        one_run(client, link, units, False)  # the first one warms up
        for number in range(rounds):
            order = (False, True) if number % 2 == 0 else (True, False)
            rows += [{"watched": watched, **one_run(client, link, units, watched)} for watched in order]
    pairs = [sorted(pair, key=lambda row: row["watched"]) for pair in zip(rows[::2], rows[1::2], strict=True)]
    ratios = {key: [on[key] / off[key] for off, on in pairs] for key in ("seconds", "scheduler_cpu")}
    extra = [(on["scheduler_cpu"] - off["scheduler_cpu"]) / on["seconds"] for off, on in pairs]
    return {
        "units": units, "rounds": rounds, "seconds": round(statistics.median(row["seconds"] for row in rows), 2),
        "run time on/off": round(statistics.median(ratios["seconds"]), 4),
        "run time on/off, each": [round(one, 4) for one in ratios["seconds"]],
        "scheduler CPU on/off": round(statistics.median(ratios["scheduler_cpu"]), 4),
        "scheduler CPU off, share of a core": round(
            statistics.median(off["scheduler_cpu"] / off["seconds"] for off, _ in pairs), 4
        ),
        "extra scheduler CPU, share of a core": round(statistics.median(extra), 4),
        "rows": rows,
    }  # fmt: skip


def stream_cost(tasks: int, rounds: int) -> dict[str, Any]:
    """Return what following the task stream costs a scheduler, of all that so many tasks of no work cost it.

    The time inside the plugin is measured where it runs, in the very runs whose CPU seconds it is compared with: two
    runs of the same differ by more. What a plugin takes that does nothing, the clock above all, does not count.
    """
    from daskml_scale.dashboard import performance, private

    shares, each = [], []
    with dms.cluster(SPEC, adapt=False) as cluster, cluster.get_client() as client:
        client.wait_for_workers(WORKERS)
        scheduler = psutil.Process(client.run_on_scheduler(os.getpid))
        client.run_on_scheduler(private.follow_tasks, most=performance.MOST_TASKS)
        client.run_on_scheduler(_clocked)
        for number in range(rounds + 1):
            before, clock = scheduler.cpu_times(), client.run_on_scheduler(_spent)
            client.gather(client.map(abs, range(number * tasks, (number + 1) * tasks), pure=False))
            inside, after = client.run_on_scheduler(_spent) - clock, scheduler.cpu_times()
            spent = after.user + after.system - before.user - before.system
            if number:  # the first one warms up
                shares.append(inside / spent)
                each.append(inside / tasks)
    return {
        "tasks": tasks, "rounds": rounds, "us a task": round(1e6 * statistics.median(each), 2),
        "share of the scheduler's CPU": round(statistics.median(shares), 4), "most": round(max(shares), 4),
    }  # fmt: skip


def _clocked(dask_scheduler: Any) -> None:
    """Have the plugin that follows tasks, and one that does nothing, count their seconds."""
    from time import perf_counter

    from distributed.diagnostics.plugin import SchedulerPlugin

    dask_scheduler.add_plugin(SchedulerPlugin(), name="nothing")
    for name in ("task-stream", "nothing"):
        plugin = dask_scheduler.plugins[name]
        plugin.spent = 0.0

        def timed(*args: Any, plugin: Any = plugin, transition: Any = plugin.transition, **more: Any) -> None:
            began = perf_counter()
            transition(*args, **more)
            plugin.spent += perf_counter() - began

        plugin.transition = timed


def _spent(dask_scheduler: Any) -> float:
    plugins = dask_scheduler.plugins
    return float(plugins["task-stream"].spent - plugins["nothing"].spent)


def first_paint(units: int, rounds: int) -> dict[str, Any]:
    """Return seconds from asking for the page to the map being drawn, in Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1280,900"):
        options.add_argument(f"--{flag}")
    found = []
    with dms.cluster(SPEC, adapt=False) as cluster, cluster.get_client() as client:
        with publisher(client) as sink:
            for event in large_run(units):
                sink(event)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            for _ in range(rounds):
                browser.get(cluster.dashboard_link.removesuffix("status") + "workflow")
                while not browser.execute_script("return window.daskml && document.querySelector('canvas')"):
                    time.sleep(0.02)
                found.append(browser.execute_script("return window.daskml.painted") / 1000)
        finally:
            browser.quit()
    return {"units": units, "first paint s": round(statistics.median(found), 3), "most s": round(max(found), 3)}


def named(found: dict[str, Any]) -> dict[str, tuple[float, float | None]]:
    """Return the numbers that were goals by name, each with its goal."""
    told: dict[str, tuple[float, float | None]] = {}
    if run := found.get("run"):
        told["three pages open: run time, % more"] = (100 * (run["run time on/off"] - 1), 1.0)
        told["three pages open: scheduler, % of a core more"] = (100 * run["extra scheduler CPU, share of a core"], 2.0)
        told["three pages open: scheduler, % more than without"] = (100 * (run["scheduler CPU on/off"] - 1), None)
    if paint := found.get("paint"):
        told["first paint with 100,000 units, s"] = (paint["first paint s"], 2.0)
    if report := found.get("report"):
        told["report of 100,000 units and 1,000 trials, s"] = (report["seconds"], 10.0)
        told["report of 100,000 units and 1,000 trials, MB"] = (report["MB"], 5.0)
    if document := found.get("document"):
        told["1,000,000 units and 1,000 workers: documents, % of a core"] = (
            100 * document["share of a core at most"], 2.0,
        )  # fmt: skip
    if stream := found.get("stream"):
        told["task stream of Dask's report, % of the scheduler's CPU"] = (
            100 * stream["share of the scheduler's CPU"], 1.0,
        )  # fmt: skip
    return told


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching")
    parser.add_argument("--units", type=int, default=2000, help="of each run with and without pages")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("run", "paint", "report", "stream"))
    parser.add_argument("--json", metavar="FILE")
    asked = parser.parse_args(words)
    found: dict[str, Any] = {}
    before = load()
    if asked.only in (None, "report"):
        found["report"] = report_cost(100_000, 1000)
        found["document"] = fold_cost(1_000_000, 1000)
    if asked.only in (None, "stream"):
        found["stream"] = stream_cost(3000, asked.rounds)
    if asked.only in (None, "paint") and not BROWSER.exists():
        print(f"no {BROWSER}: the first paint is not measured")
    elif asked.only in (None, "paint"):
        found["paint"] = first_paint(100_000, asked.rounds)
    if asked.only in (None, "run"):
        found["run"] = on_and_off(asked.units, asked.rounds)
    for name, told in found.items():
        print(name, json.dumps({key: told[key] for key in told if key != "rows"} if isinstance(told, dict) else told))
    if asked.json:
        about = {"size": "full", "repeat": asked.rounds, **machine(), "load": before, "area": "watching"}
        Path(asked.json).parent.mkdir(parents=True, exist_ok=True)
        Path(asked.json).write_text(json.dumps({**about, "found": named(found), "watching": found}, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
