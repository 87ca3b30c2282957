"""Files as they come: each is read rightly, or refused with its name and the remedy."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError
from daskml_scale.stages.csv_files import header


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
        ("t.csv", b'a,b\n1,"2\n', "not a readable CSV file"),
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
