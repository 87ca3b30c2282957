"""Files as they come: each is read rightly, or refused with its name and the remedy."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import PlanError
from daskml_scale.stages.csv_files import cuts, header, look


def ingested(path: Path, **options):
    return dms.ingest(path, path.parent / "out.zarr", **options)


@pytest.mark.parametrize(
    ("content", "names", "who", "n"),
    [
        (b"\xef\xbb\xbfwho,n\na,1\nb,2\n", ["who", "n"], ["a", "b"], [1, 2]),
        (b'\xef\xbb\xbf"who",n\na,1\nb,2\n', ["who", "n"], ["a", "b"], [1, 2]),
        (b"who,n\r\na,1\r\nb,2\r\n", ["who", "n"], ["a", "b"], [1, 2]),
        (b"who,n\ra,1\rb,2\r", ["who", "n"], ["a", "b"], [1, 2]),
        (b"who,n\na,1\nb,2", ["who", "n"], ["a", "b"], [1, 2]),
        (b'"who","n"\n"a, with ""quotes""\nand a line",1\nb,2\n', ["who", "n"],
         ['a, with "quotes"\nand a line', "b"], [1, 2]),
        (b'"who\nis it",n\na,1\nb,2\n', ["who\nis it", "n"], ["a", "b"], [1, 2]),
        (b"\n\nwho,n\n\na,1\n\nb,2\n\n", ["who", "n"], ["a", "b"], [1, 2]),
        ("who,n\nÅsa,1\n北京,2\n".encode(), ["who", "n"], ["Åsa", "北京"], [1, 2]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_any_dialect_gives_its_table(tmp_path, content, names, who, n, packed):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert list(header(str(path))) == names
    ds = ingested(path)
    assert list(ds.variables) == names
    text = ds[names[0]]
    assert [text.attrs["categories"][code] for code in text.values] == who
    assert ds.n.values.tolist() == n


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty: a CSV file starts with a line of column names"),
        ("t.csv", b"\n\n", "is empty: a CSV file starts with a line of column names"),
        ("t.csv", b"\xef\xbb\xbf", "is empty: a CSV file starts with a line of column names"),
        ("t.csv.gz", gzip.compress(b"", mtime=0), "is empty: a CSV file starts with a line of column names"),
        ("t.csv.gz", b"", "is empty: a CSV file starts with a line of column names"),
        ("t.csv.gz", b"a,b\n1,2\n", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "not a readable CSV file"),
        ("t.csv", b"a,b,a\n1,2,3\n", "names column 'a' twice; rename one of them"),
        ("t.csv", b"a,b,\n1,2,3\n", "column 3 has no name"),
        ("t.csv", b'a,b\n1,"2\n', "not a readable CSV file: a quote is opened and never closed"),
        ("t.csv", b'a,b\n5" x,1\n"2,3\n', r"row 2 has 1 values .*\(a quote that is never closed\?\)"),
        ("t.csv", b"a,b\n1,\xe9\n", "save it as UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "not a readable CSV file"),
        ("t.csv", b"a/b,c\n1,2\n", "column 'a/b' cannot name a stored array; rename it there"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Exception, match=message) as caught:
        ingested(path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()


ROW = st.lists(st.text('a",\n\r ;1', max_size=6), min_size=2, max_size=2)


@settings(deadline=None, max_examples=200)
@given(st.lists(ROW, max_size=12), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
def test_a_file_is_cut_between_rows_wherever_its_pieces_end(rows, size, end):
    """Values may hold quotes, commas and line ends; each block read alone gives its rows and no others."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["n", "x"], *rows])
    data = text.getvalue().encode()
    start = len(f'"n","x"{end}')
    bounds = [(at, min(at + size, len(data))) for at in range(start, len(data), size)]
    seen = [look(data[a:b], a, data[a - 1] if a > start else 10, data[b] if b < len(data) else 10) for a, b in bounds]
    blocks = cuts(seen, start, len(data))
    assert b"".join(data[a:b] for a, b in blocks) == data[start:]
    assert [row for a, b in blocks for row in csv.reader(io.StringIO(data[a:b].decode(), newline=""))] == rows


def test_a_file_whose_quotes_stand_inside_values_is_not_cut():
    data = b'5" pipe,1\n6" pipe,2\n' * 20
    seen = [look(data[at : at + 30], at, 10, 10) for at in range(0, len(data), 30)]
    assert cuts(seen, 0, len(data)) == [(0, len(data))]


def test_a_bad_first_line_is_found_before_anything_runs(tmp_path):
    for number, content in enumerate((b"", b"a,a\n1,2\n", b"a/b\n1\n")):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(content)
        before = dms.last_run()
        with pytest.raises(PlanError):
            ingested(path)
        assert dms.last_run() is before


def test_a_header_alone_is_an_empty_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n")
    ds = ingested(path, sort_by="a")
    assert (list(ds.variables), ds.sizes["row"]) == (["a", "b"], 0)


def test_names_with_spaces_are_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("dep delay,when\n5,2024-01-02\n4,2024-01-01\n")
    ds = ingested(path, sort_by="dep delay")
    assert ds["dep delay"].values.tolist() == [4, 5]
