from __future__ import annotations

import pytest

import daskml_scale as dms
from daskml_scale.errors import UnitsFailedError


@pytest.mark.parametrize("place", ["in process", "on the default client"])
def test_results_come_in_the_order_of_the_items(place, request):
    if place != "in process":
        request.getfixturevalue("client")
    assert dms.map(lambda item: item * 2, range(1000)) == [item * 2 for item in range(1000)]


def test_items_may_come_from_a_generator_and_be_anything(client):
    words = (word for word in ["a", None, {"b": 1}, [1, 2]])
    assert dms.map(lambda item: item, words, client=client) == ["a", None, {"b": 1}, [1, 2]]


def test_nothing_gives_nothing():
    assert dms.map(str, []) == []


@pytest.mark.parametrize("place", ["in process", "on a cluster"])
def test_failing_items_are_counted_and_the_first_is_shown(place, client):
    def picky(item):
        if item % 10 == 7:
            raise KeyError(f"no {item}")
        return item

    with pytest.raises(UnitsFailedError, match=r"10 of 100 items failed. First: item 7 \(7\): KeyError: 'no 7'"):
        dms.map(picky, range(100), client=client if place == "on a cluster" else None)
