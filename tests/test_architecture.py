"""The house rules that a program can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import daskml_scale as dms

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "daskml_scale").rglob("*.py"))


def test_the_import_contracts_hold():
    # In a process of its own: it configures logging, which disables all loggers that exist.
    program = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(config_filename=sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", program, str(ROOT / "pyproject.toml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["daskml_scale", "daskml_scale.cli", "daskml_scale.engine.worker"])
def test_start_up_imports_nothing_heavy(module):
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"dask", "distributed", "zarr", "xarray", "pandas", "sklearn", "skops", "bokeh", "sqlalchemy", "numpy"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_and_leave_nothing_unbuilt(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module starts by saying what it is for"
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "breakpoint", "print"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "NotImplementedError" not in names


def test_public_names_are_there_and_documented():
    for name in dms.__all__:
        value = getattr(dms, name)
        assert name == "__version__" or value.__doc__, name
    assert sorted(dms.__all__) == dir(dms)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dms.nonsense  # noqa: B018


def test_no_room_shadows_a_public_function():
    """Importing daskml_scale.plan would replace a function ``dms.plan`` by the package."""
    rooms = {path.stem for path in (ROOT / "daskml_scale").iterdir()}
    assert rooms & set(dms.__all__) == {"search", "steps"}


def test_no_file_names_a_machine_or_a_registry_host():
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not found:
        pytest.skip("not a git checkout")
    forbidden = ("/" + "root/", "/" + "work/", "pypi" + ".org", "files.python" + "hosted")
    for name in found:
        path = ROOT / name
        if path.suffix in {".png", ".svg"} or not path.exists():
            continue
        text = path.read_text(errors="replace")
        assert not [word for word in forbidden if word in text], name
