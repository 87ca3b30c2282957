"""``dms.map`` without ``out=``: order, isolation, retries, laziness, and what it says when it cannot."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path

import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError, UnitsFailedError, UsageError
from daskml_scale.stages.calls import retry_policy


def test_results_come_in_the_order_of_the_items(place):
    assert dms.map(lambda item: item * 2, range(1000), client=place) == [item * 2 for item in range(1000)]


def test_the_default_client_is_used(own_client):
    from distributed import get_worker

    with own_client.as_current():
        names = set(dms.map(lambda item: str(get_worker().name), range(3)))
    assert names <= {"0", "1"}


def test_items_may_come_from_a_generator_and_be_anything(own_client):
    words = (word for word in ["a", None, {"b": 1}, [1, 2]])
    assert dms.map(lambda item: item, words, client=own_client) == ["a", None, {"b": 1}, [1, 2]]


@pytest.mark.parametrize("items", [[], (), range(0), iter(())], ids=["list", "tuple", "range", "iterator"])
def test_nothing_gives_nothing(items, place):
    assert dms.map(str, items, client=place) == []


@pytest.mark.parametrize("func", [math.sqrt, partial(pow, 2), str], ids=["builtin", "partial", "type"])
def test_anything_that_can_be_called_is_a_function(func, place):
    assert dms.map(func, [4, 9], client=place) == [func(4), func(9)]


def test_failing_items_are_counted_and_the_first_is_shown(place):
    def picky(item):
        if item % 10 == 7:
            raise KeyError(f"no {item}")
        return item

    with pytest.raises(
        UnitsFailedError, match=r"10 of 100 items failed. First: item 7 \(7\): KeyError: 'no 7'"
    ) as raised:
        dms.map(picky, range(100), client=place)
    assert "in picky" in str(raised.value)


def test_outcomes_come_as_they_finish_with_their_item_and_their_error(place):
    def picky(item):
        if item == 3:
            raise ValueError("not three")
        return item * item

    found = {int(o.unit.key): o for o in dms.map(picky, [5, 4, 2, 3], client=place, as_completed=True)}
    assert {n: (o.unit.payload, o.value, o.error) for n, o in found.items()} == {
        0: (5, 25, ""),
        1: (4, 16, ""),
        2: (2, 4, ""),
        3: (3, None, "ValueError: not three"),
    }
    assert "in picky" in found[3].traceback


def test_the_first_outcome_comes_before_an_endless_generator_is_read(own_client):
    read = []

    def endless():
        for number in count():
            read.append(number)
            yield number

    outcomes = dms.map(lambda item: item + 1, endless(), client=own_client, as_completed=True)
    first = next(outcomes)
    assert first.value == int(first.unit.key) + 1
    assert len(read) < 100_000
    outcomes.close()
    deadline = time.monotonic() + 20
    while own_client.processing() and any(own_client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(own_client.processing().values())


def test_what_a_retry_policy_names_is_tried_again(place, tmp_path):
    def flaky(item):
        tries = Path(item).read_text() if Path(item).exists() else ""
        Path(item).write_text(tries + "x")
        if len(tries) < 2:
            raise ConnectionResetError("again")
        return len(tries)

    paths = [str(tmp_path / f"{number}") for number in range(3)]
    # A class and those below it, or its name.
    assert dms.map(flaky, paths, client=place, retry={OSError: 2}) == [2, 2, 2]
    for path in paths:
        os.remove(path)
    with pytest.raises(UnitsFailedError, match=r"3 of 3 items failed.*ConnectionResetError: again"):
        dms.map(flaky, paths, client=place, retry={"ConnectionResetError": 1})
    for path in paths:
        os.remove(path)
    with pytest.raises(UnitsFailedError, match="3 of 3"):
        dms.map(flaky, paths, client=place, retry={"ValueError": 5})


@pytest.mark.parametrize(
    ("retry", "message"),
    [
        ({3: 3}, "3 is no exception class or its name"),
        ({int: 3}, "<class 'int'> is no exception class"),
        ({"not a name": 3}, "'not a name' is no exception"),
        ({OSError: 0}, "OSError: 0 is no number of times"),
        ({OSError: True}, "OSError: True is no number of times"),
        ({OSError: 1.5}, "OSError: 1.5 is no number of times"),
    ],
)
def test_a_wrong_retry_policy_is_refused(retry, message):
    with pytest.raises(UsageError, match=message):
        dms.map(str, [1], retry=retry)


def test_retry_policies_go_by_class_name():
    assert retry_policy({OSError: 1, "requests.exceptions.Timeout": 2}) == {"OSError": 1, "Timeout": 2}
    assert retry_policy(None) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, [1]), "func is a int, which cannot be called"),
        ((str, 3), "items is a int, which holds no items"),
        ((str, None), "items is a NoneType"),
    ],
)
@pytest.mark.parametrize("as_completed", [False, True])
def test_arguments_are_checked_at_the_call(arguments, message, as_completed):
    with pytest.raises(UsageError, match=message):
        dms.map(*arguments, as_completed=as_completed)


def test_a_client_must_be_one_and_run():
    from distributed import Client, LocalCluster

    with pytest.raises(UsageError, match="client is a int; give a distributed Client"):
        dms.map(str, [1], client=3)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        closed = Client(cluster, set_as_default=False)
        with pytest.raises(UsageError, match="client is a LocalCluster"):
            dms.map(str, [1], client=cluster)
        closed.close()
    with pytest.raises(UsageError, match="client is closed; give one that is running"):
        dms.map(str, [1], client=closed)


@pytest.mark.parametrize("name", ["", " ", 3])
def test_a_name_is_a_few_letters(name):
    with pytest.raises(UsageError, match="give a few letters"):
        dms.map(str, [1], name=name)


def test_a_function_that_cannot_be_sent_is_named_before_anything_runs(own_client):
    lock = threading.Lock()

    def locked(item):
        with lock:
            return item

    with pytest.raises(PlanError, match=r"locked cannot be sent to workers: TypeError: .*lock.*; give it plain values"):
        dms.map(locked, [1], client=own_client)
    assert dms.map(locked, [1]) == [1]  # nothing is sent here


def test_an_item_that_cannot_be_sent_is_named(own_client):
    with pytest.raises(PlanError, match=r"unit 2 cannot be sent to a worker: TypeError.*lock"):
        dms.map(str, [1, 2, threading.Lock()], client=own_client)


def test_items_that_raise_say_after_which_one(place):
    def broken():
        yield from range(5)
        raise OSError("the file ended")

    with pytest.raises(UsageError, match="items ended after item 4 with OSError: the file ended; without out= nothing"):
        dms.map(str, broken(), client=place)
    seen = []
    with pytest.raises(UsageError, match="what finished was yielded"):
        seen.extend(o.value for o in dms.map(str, broken(), client=place, as_completed=True))


def test_items_that_raise_at_once_say_so():
    with pytest.raises(UsageError, match="items ended before the first one with ZeroDivisionError"):
        dms.map(str, (1 // zero for zero in [0]))


INTERRUPTED = """
import os, sys, time
from distributed import Client, LocalCluster
import daskml_scale as dms

def slow(item):
    open(os.path.join(sys.argv[1], f"{item}-{os.getpid()}"), "w").close()
    time.sleep(0.05)
    return item

if __name__ == "__main__":
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        try:
            dms.map(slow, range(10_000), client=client)
        except KeyboardInterrupt:
            stopped = True
        for _ in range(200):
            tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
            if not tasks:
                break
            time.sleep(0.05)
        sys.stdout.write(f"stopped: {stopped}, tasks left: {tasks}")
"""


def test_ctrl_c_leaves_nothing_on_the_cluster(tmp_path, executions):
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(program), str(executions)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while len(list(executions.iterdir())) < 20:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # to the driver alone, as from a notebook
        found, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert found == "stopped: True, tasks left: 0"
