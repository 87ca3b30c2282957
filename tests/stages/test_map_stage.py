"""The stage kind ``map`` in workflows: ranges, lists, rows and files; a table that later stages read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError, SpecError, UnitsFailedError
from daskml_scale.stages import map_table

MODULE = """
import os
from pathlib import Path
import mine_helper

CALLS = {calls!r}

def trace(item):
    Path(CALLS, str(item).replace("/", "_") + f"-{{os.urandom(6).hex()}}").touch()

def square(item):
    trace(item)
    return mine_helper.power(item)

def describe(item):
    trace(item)
    return {{"name": f"n{{item % 2}}", "half": item / 2, "even": item % 2 == 0, "more": item if item > 1 else None}}

def add(row):
    trace(row["a"])
    return row["a"] + (row["b"] or 0)

def lines(path):
    trace(Path(path).name)
    return {{"lines": len(Path(path).read_text().splitlines())}}

def nothing(item):
    trace(item)

def picky(item):
    if item == 3:
        raise ValueError("not three")
    return item

def flaky(item):
    seen = len([name for name in os.listdir(CALLS) if name.startswith(f"{{item}}-")])
    trace(item)
    if seen < 2:
        raise ConnectionError("again")
    return seen

def matrix(item):
    return [[1]]

LIMIT = 3
"""


def plain(names):
    return sorted(name.rpartition("-")[0] for name in names)


class Workshop:
    """A folder with a workflow, its module and its data."""

    def __init__(self, folder: Path, calls: Path) -> None:
        self.folder, self.calls = folder, calls
        self.module = f"mine_{folder.name.replace('-', '_')}_{os.urandom(3).hex()}"
        self.write(MODULE.format(calls=str(calls)))
        (folder / "mine_helper.py").write_text("def power(x): return x * x\n")

    def write(self, text: str) -> None:
        self.forget()
        (self.folder / f"{self.module}.py").write_text(text)

    def forget(self) -> None:
        """As a new process would."""
        for name in (self.module, "mine_helper"):
            sys.modules.pop(name, None)

    def workflow(self, stages: str) -> Path:
        path = self.folder / "w.yaml"
        path.write_text(
            f"version: 1\nname: w\nstore: {self.folder}/store\nstages:\n" + stages.replace("MODULE", self.module)
        )
        return path

    def run(self, stages: str, client=None):
        self.forget()
        return dms.run(self.workflow(stages), cluster=None if client else "none", client=client)

    def table(self, stage: str):
        return dms.open_dataset(str(self.folder / "store" / f"{stage}.zarr")).compute()

    def called(self) -> list[str]:
        found = plain(os.listdir(self.calls))
        for path in self.calls.iterdir():
            path.unlink()
        return found


@pytest.fixture
def workshop(tmp_path, executions):
    found = Workshop(tmp_path, executions)
    yield found
    found.forget()


RANGE = "  squares: {kind: map, function: 'MODULE:square', over: {range: [2, 12, 3]}}\n"


def test_a_range_becomes_a_table_with_a_row_per_item(place, workshop):
    summary = workshop.run(RANGE, place)
    found = workshop.table("squares")
    assert found["item"].values.tolist() == [2, 5, 8, 11]
    assert found["value"].values.tolist() == [4, 25, 64, 121]
    assert found["value"].dtype == "int64"
    assert workshop.called() == ["11", "2", "5", "8"]
    assert summary.stages[0].units == 5  # four calls and the table
    assert summary.stages[0].rows == 4


def test_nothing_is_called_twice_and_a_lost_table_is_written_again(workshop):
    workshop.run(RANGE)
    workshop.called()
    assert workshop.run(RANGE).stages[0].reused == 5
    value = workshop.folder / "store" / "squares.zarr" / "value" / "c" / "0"
    value.unlink()
    summary = workshop.run(RANGE)
    assert (summary.stages[0].units, summary.stages[0].reused) == (5, 4)
    assert workshop.called() == []
    assert workshop.table("squares")["value"].values.tolist() == [4, 25, 64, 121]


def test_a_changed_function_or_helper_runs_everything_again(workshop):
    workshop.run(RANGE)
    workshop.called()
    (workshop.folder / "mine_helper.py").write_text("def power(x): return x * x * 10\n")
    workshop.run(RANGE)
    assert len(workshop.called()) == 4
    assert workshop.table("squares")["value"].values.tolist() == [40, 250, 640, 1210]


def test_a_longer_range_runs_only_the_new_items(workshop):
    workshop.run(RANGE)
    workshop.called()
    workshop.run(RANGE.replace("12", "18"))
    assert workshop.called() == ["14", "17"]
    workshop.run(RANGE.replace("12", "6"))
    assert workshop.called() == []
    assert workshop.table("squares")["item"].values.tolist() == [2, 5]


def test_flat_dicts_become_columns_of_their_types(place, workshop):
    workshop.run("  d: {kind: map, function: 'MODULE:describe', over: {list: [0, 1, 2, 3]}, chunk: 3}\n", place)
    found = workshop.table("d")
    assert found["item"].values.tolist() == [0, 1, 2, 3]
    assert found["half"].values.tolist() == [0, 0.5, 1, 1.5]
    assert found["even"].values.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(found["more"].values, [np.nan, np.nan, 2, 3])
    assert [found["name"].attrs["categories"][code] for code in found["name"].values] == ["n0", "n1", "n0", "n1"]


TABLE = (
    "  t: {kind: ingest, source: SOURCE, row: {dim: station, chunk: 2}}\n"
    "  sums: {kind: map, function: 'MODULE:add', over: {rows: {of: t, columns: [a, b]}}, chunk: 2}\n"
    "  check: {kind: validate, input: sums, rules: [{range: {of: value, least: 0}}]}\n"
)


def test_rows_of_a_table_become_rows_of_another_that_later_stages_read(place, workshop):
    source = workshop.folder / "t.csv"
    source.write_text("a,b,c\n1,10,x\n2,20,y\n3,30,z\n4,40,x\n5,50,y\n")
    stages = TABLE.replace("SOURCE", str(source))
    workshop.run(stages, place)
    found = workshop.table("sums")
    assert found["value"].dims == ("station",)
    assert found["value"].values.tolist() == [11, 22, 33, 44, 55]
    workshop.called()
    # One value of the second chunk changes, and a column that is not read.
    source.write_text("a,b,c\n1,10,q\n2,20,y\n3,31,z\n4,40,x\n5,50,y\n")
    workshop.run(stages, place)
    assert workshop.called() == ["3", "4"]
    assert workshop.table("sums")["value"].values.tolist() == [11, 22, 34, 44, 55]


def test_missing_values_and_texts_of_rows_are_plain_python(workshop):
    source = workshop.folder / "t.csv"
    source.write_text("a,when,b\nx,2026-01-01T00:00:00,1.5\n,2026-01-02T00:00:00,\n")
    workshop.write(
        "import numpy as np\n"
        "def kinds(row):\n"
        "    return {'a': str(row['a']), 'b': type(row['b']).__name__, 'when': str(row['when'].astype('M8[D]'))}\n"
    )
    workshop.run(
        f"  t: {{kind: ingest, source: {source}, row: {{dim: r}}}}\n"
        "  k: {kind: map, function: 'MODULE:kinds', over: {rows: {of: t, columns: [a, b, when]}}}\n"
    )
    found = workshop.table("k")
    texts = {
        name: [found[name].attrs["categories"][code] for code in found[name].values] for name in ("a", "b", "when")
    }
    assert texts == {"a": ["x", "None"], "b": ["float", "float"], "when": ["2026-01-01", "2026-01-02"]}


FILES = "  counts: {kind: map, function: 'MODULE:lines', over: {files: PATTERN}}\n"


def test_only_new_and_changed_files_run_again(place, workshop):
    data = workshop.folder / "data"
    (data / "deep").mkdir(parents=True)
    for number, name in enumerate(["b.txt", "a.txt", "deep/c.txt"]):
        (data / name).write_text("x\n" * (number + 1))
    stages = FILES.replace("PATTERN", f"'{data}/**/*.txt'")
    workshop.run(stages, place)

    def rows():
        found = workshop.table("counts")
        names = [found["file"].attrs["categories"][code] for code in found["file"].values]
        return dict(zip(names, found["lines"].values.tolist(), strict=True))

    assert rows() == {"a.txt": 2, "b.txt": 1, "deep/c.txt": 3}
    assert workshop.called() == ["a.txt", "b.txt", "c.txt"]
    (data / "aa.txt").write_text("x\n" * 7)  # comes between the others
    (data / "b.txt").write_text("x\n" * 9)
    os.utime(data / "a.txt")  # touched, not changed
    workshop.run(stages, place)
    assert workshop.called() == ["aa.txt", "b.txt"]
    assert rows() == {"a.txt": 2, "aa.txt": 7, "b.txt": 9, "deep/c.txt": 3}
    (data / "aa.txt").unlink()
    workshop.run(stages, place)
    assert workshop.called() == []
    assert rows() == {"a.txt": 2, "b.txt": 9, "deep/c.txt": 3}


def test_a_pattern_without_files_is_refused(workshop):
    with pytest.raises(PlanError, match=r"counts: no file matches .*/nowhere/\*.txt; check `over.files`"):
        workshop.run(FILES.replace("PATTERN", f"'{workshop.folder}/nowhere/*.txt'"))


def test_functions_that_return_nothing_leave_the_items(workshop):
    workshop.run("  none: {kind: map, function: 'MODULE:nothing', over: {list: [a, b]}}\n")
    found = workshop.table("none")
    assert list(found.variables) == ["item"]
    assert workshop.called() == ["a", "b"]


def test_a_failing_item_is_named_and_the_others_are_kept(place, workshop):
    with pytest.raises(
        UnitsFailedError, match=r"1 of 5 units failed; .*ValueError: not three[\s\S]*This was item 3 of stage p"
    ):
        workshop.run("  p: {kind: map, function: 'MODULE:picky', over: {range: 5}}\n", place)


def test_what_a_retry_policy_names_is_tried_again(place, workshop):
    stage = "  f: {kind: map, function: 'MODULE:flaky', over: {range: 2}, retry: {OSError: 2}}\n"
    workshop.run(stage, place)
    assert workshop.called() == ["0", "0", "0", "1", "1", "1"]
    assert workshop.table("f")["value"].values.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{kind: map, function: 'mine_absent:f', over: {range: 2}}", "mine_absent cannot be imported"),
        ("{kind: map, function: 'MODULE:sqare', over: {range: 2}}", "has no 'sqare'.*square"),
        ("{kind: map, function: 'MODULE:LIMIT', over: {range: 2}}", "is a int, no function"),
        ("{kind: map, function: 'MODULE:square', over: {range: 10000000}}", "10,000,000 units.*chunk: to at least 10 "),
    ],
)
def test_a_stage_that_cannot_be_says_why_before_anything_runs(workshop, stage, message):
    with pytest.raises((SpecError, PlanError), match=message) as raised:
        dms.dry_run(workshop.workflow(f"  s: {stage}\n"))
    assert isinstance(raised.value, PlanError) or "w.yaml:5: stages.s.function" in str(raised.value)


def test_a_result_that_is_no_row_fails_its_item_with_the_remedy(workshop):
    with pytest.raises(UnitsFailedError, match="TypeError: the function returned a list, which is no cell of a table"):
        workshop.run("  m: {kind: map, function: 'MODULE:matrix', over: {range: 2}}\n")


def test_an_unknown_column_is_named(workshop):
    source = workshop.folder / "t.csv"
    source.write_text("a,b\n1,2\n")
    stages = TABLE.replace("SOURCE", str(source)).replace("[a, b]", "[a, d]")
    with pytest.raises(SpecError, match=r"stages.sums.over.rows.columns\[1\]: unknown column 'd'"):
        workshop.run(stages)


def test_a_dry_run_counts_units_and_says_that_the_table_follows(workshop):
    (row,) = dms.dry_run(workshop.workflow(RANGE))
    assert (row.units, row.later, row.reused) == (5, 1, 0)
    assert row.grid == "4 items in 4 units"
    assert row.reasons == {"new": 4}
    assert not (workshop.folder / "store").exists()


def test_ranges_may_be_empty(workshop):
    workshop.run("  e: {kind: map, function: 'MODULE:square', over: {range: 0}}\n")
    assert workshop.table("e")["item"].shape == (0,)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1, 2], "int64"), ([1, None], "float64"), ([1, 2.5], "float64"), ([True, False], "float64"), ([None], "float64")],
)
def test_columns_take_the_narrowest_type_that_holds_all(values, dtype):
    assert map_table.typed("s", "x", values).dtype == dtype


@pytest.mark.parametrize(
    ("values", "message"),
    [(["a", 1], "column 'x' holds text and int"), ([2**70, 1], "column 'x' holds 1180591620717411303424, beyond 64")],
)
def test_columns_of_two_kinds_are_refused(values, message):
    with pytest.raises(PlanError, match=message):
        map_table.typed("s", "x", values)


@pytest.mark.parametrize("name", ["", "a/b", ".", "__x"])
def test_keys_that_cannot_name_a_column_are_refused(name):
    with pytest.raises(TypeError, match="cannot name a column"):
        map_table.row({name: 1})


def test_numpy_scalars_are_plain_values():
    found = map_table.row({"a": np.int32(3), "b": np.float32(0.5), "c": np.array(2), "d": np.str_("x")})
    assert [type(value) for value in found.values()] == [int, float, int, str]
