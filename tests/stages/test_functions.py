"""What a function is: equal code has an equal digest everywhere, changed behaviour another one."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import threading

import pytest

from daskml_scale.errors import PlanError
from daskml_scale.stages.code import code_digest, is_users
from daskml_scale.stages.functions import Sent, find


def defined(source, name="f", **names):
    """The function that a piece of source defines, as a notebook cell would."""
    space = {"__name__": "__main__", **names}
    exec(source, space)
    return space[name]


def digest(source, **names):
    return code_digest(defined(source, **names))


PLAIN = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    "same",
    [
        PLAIN,
        "\n\n# a comment\n" + PLAIN,
        "def f(x):\n\n    # a remark\n    return (x\n            + 1)\n",
        "def helper(x):\n    return 7\n" + PLAIN,
    ],
    ids=["equal", "moved", "laid out otherwise", "beside other code"],
)
def test_equal_code_has_an_equal_digest(same):
    assert digest(same) == digest(PLAIN)


BASE = """
import math
from functools import lru_cache
LIMIT = 3
TABLE = {"a": [1, 2], "f": lambda x: x}
def helper(x): return x + LIMIT
@lru_cache
def cached(x): return x * 2
class Model:
    rate = 0.5
    def apply(self, x): return x * self.rate
    @staticmethod
    def twice(x): return 2 * x
    @property
    def name(self): return "m"
def f(x, y=1, *, z=2):
    inner = [helper(v) for v in range(x)]
    return sum(inner) + math.sqrt(Model().apply(x)) + Model.twice(y) + cached(z) + len(TABLE) + (x in {"p", "q"})
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ('"a": [1, 2]', '"a": [1, 3]'),
        ("lambda x: x}", "lambda x: -x}"),
        ("return x + LIMIT", "return x - LIMIT"),
        ("return x * 2\n", "return x * 3\n"),
        ("rate = 0.5", "rate = 0.6"),
        ("x * self.rate", "x + self.rate"),
        ("return 2 * x", "return 3 * x"),
        ('return "m"', 'return "n"'),
        ("y=1", "y=2"),
        ("z=2", "z=3"),
        ("range(x)", "range(x + 1)"),
        ('"q"}', '"r"}'),
        ("math.sqrt", "math.cbrt"),
    ],
)
def test_whatever_changes_the_result_changes_the_digest(old, new):
    assert old in BASE
    assert digest(BASE) == digest(BASE)
    assert digest(BASE.replace(old, new)) != digest(BASE)


def test_closures_partials_and_methods_count_with_what_they_hold():
    def adder(amount):
        def add(x):
            return x + amount

        return add

    assert code_digest(adder(1)) == code_digest(adder(1)) != code_digest(adder(2))
    assert code_digest(functools.partial(adder(1))) != code_digest(adder(1))
    assert code_digest(functools.partial(pow, 2)) != code_digest(functools.partial(pow, 3))
    assert code_digest(functools.partial(int, base=2)) != code_digest(functools.partial(int, base=3))

    class Scale:
        def __init__(self, rate):
            self.rate, self.lock = rate, threading.Lock()

        def __call__(self, x):
            return x * self.rate

        def method(self, x):
            return x * self.rate

    assert code_digest(Scale(1)) == code_digest(Scale(1)) != code_digest(Scale(2))
    assert code_digest(Scale(1).method) == code_digest(Scale(1).method) != code_digest(Scale(2).method)
    assert code_digest(Scale(1).method) != code_digest(Scale(1))


def test_installed_functions_count_by_name_and_version():
    assert code_digest(math.sqrt) != code_digest(math.sin)
    assert code_digest(os.path.join) != code_digest(os.path.basename)
    assert code_digest(str) != code_digest(int)
    assert not is_users("numpy")
    assert not is_users("builtins")
    assert not is_users("os")
    assert is_users("__main__")
    assert is_users(__name__)


def test_functions_that_call_each_other_end():
    source = "def g(x): return f(x - 1) if x else 0\ndef f(x): return g(x)\n"
    assert digest(source) == digest(source) != digest(source.replace("x - 1", "x - 2"))


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_digest_does_not_depend_on_the_process(seed, tmp_path):
    (tmp_path / "mine.py").write_text(BASE)
    program = "from mine import f; from daskml_scale.stages.code import code_digest as d; print(d(f).hex())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": each},
            capture_output=True, text=True, check=True,
        ).stdout
        for each in ("0", seed)
    }  # fmt: skip
    assert len(found) == 1


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of modules, forgotten afterwards."""
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_function_is_found_beside_a_workflow_with_the_modules_that_it_uses(modules):
    (modules / "mine_main.py").write_text("import mine_help\ndef f(x): return mine_help.g(x)\n")
    (modules / "mine_help.py").write_text("def g(x): return x + 1\n")
    path = list(sys.path)
    found = find("mine_main:f", [modules])
    assert found(1) == 2
    assert sys.path == path
    first = code_digest(found)
    assert find("mine_main:f", [modules]) is found
    (modules / "mine_help.py").write_text("def g(x): return x + 22\n")
    changed = find("mine_main:f", [modules])
    assert changed(1) == 23
    assert code_digest(changed) != first


def test_a_sent_function_brings_its_modules_along(modules):
    (modules / "mine_main.py").write_text("import mine_help\ndef f(x): return mine_help.g(x)\n")
    (modules / "mine_help.py").write_text("def g(x): return x + 1\n")
    sent = Sent(find("mine_main:f", [modules]), [modules])
    blob = modules / "function.pickle"
    import cloudpickle

    blob.write_bytes(cloudpickle.dumps(sent))
    program = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))(1))"
    found = subprocess.run([sys.executable, "-c", program, str(blob)], capture_output=True, text=True, cwd="/")
    assert found.stdout == "2\n", found.stderr
    assert sent(1) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mine_absent:f", "mine_absent cannot be imported: ModuleNotFoundError: .*looked in "),
        ("mine_bad:f", "mine_bad cannot be imported: ZeroDivisionError"),
        ("mine_good:sqare", r"mine_good has no 'sqare'.*square"),
        ("mine_good:LIMIT", "'mine_good:LIMIT' is a int, no function"),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(modules, path, message):
    (modules / "mine_bad.py").write_text("1 / 0\n")
    (modules / "mine_good.py").write_text("LIMIT = 3\ndef square(x): return x * x\n")
    with pytest.raises(PlanError, match=message):
        find(path, [modules])


def test_a_function_inside_a_class_is_found(modules):
    (modules / "mine_class.py").write_text("class Box:\n    @staticmethod\n    def f(x): return x\n")
    assert find("mine_class:Box.f", [modules])(3) == 3


def test_a_module_of_the_same_name_in_another_folder_takes_its_place(modules):
    for folder, factor in (("one", 1), ("two", 2)):
        (modules / folder).mkdir()
        (modules / folder / "mine_twin.py").write_text(f"def f(x): return x * {factor}\n")
    assert find("mine_twin:f", [modules / "one"])(3) == 3
    assert find("mine_twin:f", [modules / "two"])(3) == 6
    assert find("mine_twin:f", [modules / "one", modules / "two"])(3) == 3


def test_a_module_that_is_named_like_an_installed_one_is_refused(modules):
    (modules / "json.py").write_text("def f(x): return x\n")
    with pytest.raises(PlanError, match=r"json is also the name of an installed module; rename json.py"):
        find("json:f", [modules])
