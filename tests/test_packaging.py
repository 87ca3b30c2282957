"""What is shipped: the wheel and the source distribution hold what the commands need, and work from anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = [path.relative_to(ROOT) for folder in ("workflows", "clusters") for path in (ROOT / folder).rglob("*.yaml")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, as pip builds it from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    (built,) = folder.glob("daskml_scale-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_contains_workflows_clusters_and_types_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in SHIPPED:
        assert f"daskml_scale/_packaged/{path}" in names
    assert {"daskml_scale/cli.py", "daskml_scale/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


@pytest.mark.slow
def test_the_unpacked_wheel_works_from_anywhere(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    away = tmp_path / "away"
    away.mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    for words in (["workflows"], ["clusters", "show", "local"], ["validate", "grid"]):
        command = [sys.executable, "-m", "daskml_scale", *words]
        ran = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True, timeout=200)
        assert ran.returncode == 0, ran.stderr
    found = subprocess.run(
        [sys.executable, "-c", "import daskml_scale; print(daskml_scale.__file__)"],
        cwd=away, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert found.startswith(str(tmp_path / "site"))


@pytest.mark.slow
def test_functions_of_the_installed_workflows_reach_workers(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    send = (
        "import pickle, sys; from pathlib import Path; from daskml_scale.stages.functions import Sent, find; "
        "folder = Path(sys.argv[1], 'daskml_scale/_packaged/workflows'); "
        "sys.stdout.buffer.write(pickle.dumps(Sent(find('grid_data:climate', [folder]), [folder])))"
    )
    take = "import pickle, sys; print(pickle.load(sys.stdin.buffer).__name__)"
    # What it needs is that of this environment; the package is the one installed there.
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    given = b""
    for words in ([send, str(site)], [take]):
        command = [str(tmp_path / "venv" / "bin" / "python"), "-c", *words]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, input=given, capture_output=True, timeout=200)
        assert ran.returncode == 0, ran.stderr.decode()
        given = ran.stdout
    assert given == b"climate\n"


@pytest.mark.slow
def test_a_wheel_can_be_made_of_the_source_distribution(tmp_path):
    build = pytest.importorskip("hatchling.build", reason="make package builds it in an environment of its own")
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        name = build.build_sdist(str(tmp_path))
    finally:
        os.chdir(before)
    with tarfile.open(tmp_path / name) as archive:
        names = {entry.partition("/")[2] for entry in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "daskml_scale/py.typed", *map(str, SHIPPED)} <= names


def test_the_image_is_built_from_what_there_is():
    """Its Python is one of ours, and the files and extras that it asks for exist and are sent to the builder."""
    lines = (ROOT / "clusters" / "kubernetes" / "Dockerfile").read_text()
    (python,) = re.findall(r"^ARG PYTHON=([\d.]+)\nFROM python:\$\{PYTHON\}-slim$", lines, re.MULTILINE)
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    constraints, extras = re.findall(r"pip install --no-cache-dir -c (\S+) '\.\[(\S+)\]'", lines)[0]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    left_out = (ROOT / ".dockerignore").read_text().split()
    needed = {constraints, "pyproject.toml", "README.md", "LICENSE", "daskml_scale", "workflows", "clusters"}
    assert all((ROOT / name).exists() for name in needed)
    assert needed.isdisjoint(left_out)


def _floors(extras: tuple[str, ...]) -> dict[str, str]:
    listed = [*PROJECT["dependencies"], *(one for name in extras for one in PROJECT["optional-dependencies"][name])]
    found = {}
    for each in map(Requirement, listed):
        floor = re.search(r">=([\d.]+)", str(each.specifier))
        if floor and each.name != "daskml-scale":
            found[each.name.lower().replace("_", "-")] = floor[1]
    return found


def test_the_minimum_constraints_are_the_floors_of_the_project():
    lines = (ROOT / "constraints-minimum.txt").read_text().splitlines()
    pinned = {name.lower(): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}
    floors = _floors(("s3", "netcdf", "search", "ssh", "onnx", "xgboost"))
    assert set(floors) <= set(pinned)
    for name, floor in floors.items():
        assert Version(pinned[name]) == Version(floor), name


def test_every_dependency_is_pinned_for_ci_and_says_why_it_is_there():
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    missing = {name for name in _floors(()) if name.lower() not in {one.replace("_", "-") for one in pinned}}
    assert not missing
    listed = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]")[0]
    for line in filter(None, map(str.strip, listed.splitlines())):
        assert "#" in line or line.startswith('"numpy'), line


def test_extras_name_each_other_rightly():
    known = set(PROJECT["optional-dependencies"])
    for each in map(Requirement, requires("daskml-scale") or []):
        if each.name == "daskml-scale":
            assert each.extras <= known


@pytest.mark.parametrize("words", [["status"], ["list"], ["logs"], ["cost"]])
def test_verbs_that_only_look_import_neither_dask_nor_scikit_learn(words, tmp_path):
    """A registry with a run in it is looked at; nothing that takes seconds to import is."""
    (tmp_path / "tiny.yaml").write_text(
        "version: 1\nname: tiny\nstore: ./s\ncluster: none\nstages:\n"
        "  squares: {kind: map, function: 'builtins:abs', over: {range: 3}}\n"
    )
    program = "import sys\nfrom daskml_scale import cli\ncode = cli.main({words})\nprint(code, *sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def loaded(asked: list[str]) -> list[str]:
        command = [sys.executable, "-c", program.format(words=asked)]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return ran.stdout.splitlines()[-1].split()

    if words == ["status"]:
        assert loaded(["run", "tiny.yaml", "--quiet"])[0] == "0"
    code, *modules = loaded(words)
    assert code in ("0", "1", "2")
    heavy = {"dask", "distributed", "sklearn", "xarray", "zarr", "pandas", "scipy", "bokeh"}
    assert heavy.isdisjoint(modules)
