"""Small value types and search spaces: durations, sizes, plain words, draws, grids."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from daskml_scale.errors import SpecError
from daskml_scale.spec.base import ByteSize, Duration, Word, byte_count, seconds
from daskml_scale.spec.space import Choice, LogUniform, RandInt, Uniform, draw_trials, grid
from daskml_scale.spec.steps import STEPS, AsOf, Cyclical, Keep, Trailing
from daskml_scale.spec.workflow import FeaturesSpec, RowSpec


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("15m", 900), ("15 min", 900), ("3h", 10800), ("2d", 172800), ("250ms", 0.25), ("1.5h", 5400)],
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value
    assert TypeAdapter(Duration).validate_python(text) == text


@pytest.mark.parametrize(("text", "value"), [("16GiB", 16 << 30), ("500 MB", 5 * 10**8), ("0.5KiB", 512), ("7B", 7)])
def test_sizes(text: str, value: int) -> None:
    assert byte_count(text) == value
    assert TypeAdapter(ByteSize).validate_python(text) == text


@pytest.mark.parametrize(
    "text", ["", "3", "h", "-3h", "3 hours", "3h\n3h", "0s", "1e3s", "٣h", "9" * 400 + "d", "inf s", 3, None, True]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize("text", ["", "16", "16G", "16gib", "-1B", "0B", "9" * 400 + "GiB", "0.1B", 16, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ByteSize).validate_python(text)


@pytest.mark.parametrize("text", ["a", "A-b_3", "x" * 63])
def test_plain_words(text: str) -> None:
    assert TypeAdapter(Word).validate_python(text) == text


@pytest.mark.parametrize("text", ["", "3a", "_a", "a b", "a\n", "a/b", "..", "a.b", "é", "x" * 64, "a\0", 3])
def test_what_is_no_plain_word_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Word).validate_python(text)


SPACE = {
    "rate": LogUniform(loguniform=[0.02, 0.3]),
    "share": Uniform(uniform=[0, 1]),
    "depth": RandInt(randint=[2, 9]),
    "leaf": Choice(choice=[15, "all", None, True]),
}


@given(st.integers(1, 30), st.integers())
def test_a_trial_depends_on_the_seed_and_its_number_only(trials: int, seed: int) -> None:
    drawn = draw_trials(SPACE, trials, seed)
    assert drawn == draw_trials(dict(reversed(SPACE.items())), trials + 5, seed)[:trials]
    for trial in drawn:
        assert 0.02 <= trial["rate"] <= 0.3
        assert 0 <= trial["share"] <= 1
        assert trial["depth"] in range(2, 10)
        assert trial["leaf"] in (15, "all", None, True)
    assert draw_trials(SPACE, 1, seed) != draw_trials(SPACE, 1, seed + 1)


def test_a_grid_is_every_combination_the_last_name_fastest() -> None:
    space = {"b": Choice(choice=[1, 2]), "a": Choice(choice=["x", "y"])}
    assert grid(space) == [{"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "y", "b": 1}, {"a": "y", "b": 2}]
    with pytest.raises(ValueError, match="rate is loguniform; a grid takes choices only"):
        grid({"rate": SPACE["rate"]})


def test_a_parameter_is_there_only_where_its_condition_holds() -> None:
    space = {"kernel": Choice(choice=["rbf", "linear"]), "gamma": Choice(choice=[1, 2], when={"kernel": ["rbf"]})}
    assert grid(space) == [{"gamma": 1, "kernel": "rbf"}, {"kernel": "linear"}, {"gamma": 2, "kernel": "rbf"}]
    assert all(("gamma" in trial) == (trial["kernel"] == "rbf") for trial in draw_trials(space, 20, 0))
    for other in ({"b": [1]}, {"a": [1]}):
        with pytest.raises(ValueError, match=r"a: when: \w: no parameter of the space that is known before it"):
            draw_trials({"a": Choice(choice=[1], when=other)}, 1, 0)


def test_reading_a_specification_imports_nothing_heavy() -> None:
    code = (
        "import sys; from daskml_scale.spec import find, load; from daskml_scale.plan import dag; "
        "heavy = {'dask', 'distributed', 'zarr', 'xarray', 'pandas', 'sklearn', 'scipy', 'bokeh', 'asyncio'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AsOf(tabel="p", their_time="t", take="x"), "AsOf.tabel: unknown key 'tabel'; did you mean 'table'?"),
        (lambda: AsOf(tabel="planes"), "AsOf.tabel: unknown key 'tabel'; did you mean 'table'?"),
        (lambda: Keep(), "Keep.of: this key is missing; add it"),
        (lambda: Keep(["distance"]), "Keep takes its settings by name: Keep(*, of: list[str])"),
        (lambda: RowSpec(dim="r", chunk="9"), "RowSpec.chunk: expected a whole number, found '9'; remove the quotes"),
        (lambda: Trailing(of="a", at="b", windows=["3 hours"]), "Trailing.windows[0]: '3 hours' is not a duration"),
        (lambda: Cyclical(of=["a"], periods=[1, 2]), "Cyclical: 1 names and 2 periods; give one period per name"),
        (lambda: FeaturesSpec(input="a", known_at="t", steps=[{"keep": {"off": "a"}}]),
         "FeaturesSpec.steps[0].keep.off: unknown key 'off'; did you mean 'of'?"),
        (lambda: FeaturesSpec(input="a", known_at="t <", steps=[Keep(of="a")]), "FeaturesSpec.known_at: 't <' is not"),
    ],
)  # fmt: skip
def test_a_wrong_argument_in_python_is_one_readable_error(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "pydantic" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_signatures_say_what_to_write() -> None:
    assert str(inspect.signature(AsOf)) == (
        "(*, table: str, match: list[str] = [], their_time: str, take: list[str], tolerance: str | None = None)"
    )
    for step in STEPS.values():
        assert "pydantic" not in str(inspect.signature(step))
        assert step.__doc__
        assert list(inspect.signature(step).parameters) == list(step.model_fields)
