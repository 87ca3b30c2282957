"""What pages tell readers to type exists: verbs and options of commands, names and arguments of Python calls.

Nothing runs here, so every snippet is looked at; `test_docs_run` runs those that can run.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from docs_pages import ROOT, Snippet, pages, snippets

from daskml_scale.cli import verbs

PROGRAM = "daskml-scale"
PAGES = [page for page in pages() if page.name not in ("cli.md", "CHANGELOG.md")]
ENDS = re.compile(r"[;|&<>()]+$")


def typed(text: str) -> Iterator[list[str]]:
    """Return the arguments of each command of ours in a text that a shell would read."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        words.whitespace_split = True
        try:
            found = list(words)
        except ValueError:  # an apostrophe in a line of output
            continue
        for at, word in enumerate(found):
            if word == PROGRAM:
                rest = found[at + 1 :]
                end = next((n for n, each in enumerate(rest) if ENDS.match(each)), len(rest))
                if rest[:end]:
                    yield rest[:end]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Return (where, arguments) of every command of a page, in fences and in the text."""
    found = []
    for one in snippets(page):
        lines = [
            line
            for line in one.text.replace("\\\n", " ").splitlines()
            if one.language == "bash" or line.lstrip().startswith((f"$ {PROGRAM}", f"{PROGRAM} "))
        ]
        found += [(str(one), words) for words in typed("\n".join(lines))]
    for inline in re.findall(rf"`({PROGRAM} [^`\n]+)`", page.read_text()):
        found += [(page.name, words) for words in typed(inline)]
    return found


COMMANDS = [one for page in PAGES for one in commands(page)]


def refused(words: list[str]) -> str:
    """Return why the command line does not take these words; empty when it does."""
    command: click.Command = verbs
    words = [word.strip("[]") for word in words if word.strip("[]") not in ("...", "…")]
    while isinstance(command, click.Group):
        if not words:
            return ""
        name, *words = words
        below = command.commands.get(name)
        if below is None:
            return f"no verb {name}; there are {', '.join(command.commands)}"
        command = below
    # As the program does: a command keeps the help option that it is asked for first.
    context = click.Context(command, info_name=command.name, help_option_names=["-h", "--help"])
    try:
        values, more, _ = command.make_parser(context).parse_args(list(words))
    except click.UsageError as error:
        return error.format_message()
    if more:
        return f"too many: {more}"
    for parameter in command.params:
        value = values.get(parameter.name or "")
        chosen = isinstance(parameter.type, click.Choice) and isinstance(value, str) and value.islower()
        if chosen and value not in parameter.type.choices:
            return f"{parameter.name}: {value} is none of {parameter.type.choices}"
    return ""


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{where}-{' '.join(words)}" for where, words in COMMANDS])
def test_commands_of_the_pages_are_commands(where, words):
    assert not (why := refused(words)), f"{where}: {PROGRAM} {' '.join(words)}: {why}"


def test_commands_are_found_and_wrong_ones_refused():
    assert len(COMMANDS) > 100
    assert list(typed("$ daskml-scale run x --json | jq . # a b\ncd daskml-scale && make")) == [["run", "x", "--json"]]
    assert "no verb runn" in refused(["runn", "x"])
    assert "--jsn" in refused(["run", "x", "--jsn"])
    assert "too many" in refused(["version", "one"])
    assert "none of" in refused(["schema", "clusters"])
    assert not refused(["clusters", "check", "NAME"])


CALLS = [
    (page, [one for one in snippets(page) if one.language == "python"])
    for page in PAGES
    if any(one.language == "python" and "daskml_scale" in one.text for one in snippets(page))
]


def imported(tree: ast.AST) -> dict[str, Any]:
    """Return local name -> what is imported from us; an import that fails fails the test."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] == "daskml_scale":
                    module = importlib.import_module(each.name)
                    found[each.asname or "daskml_scale"] = (
                        module if each.asname else importlib.import_module("daskml_scale")
                    )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "daskml_scale":
            module = importlib.import_module(str(node.module))
            for each in node.names:
                found[each.asname or each.name] = getattr(module, each.name)
    return found


def meant(node: ast.expr, known: dict[str, Any]) -> Any:
    """Return what of ours an expression names, or ``None``: only modules are looked into."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and inspect.ismodule(owner := meant(node.value, known)):
        return getattr(owner, node.attr)
    return None


def check(text: str, known: dict[str, Any]) -> None:
    """Look at every name and call of ours."""
    tree = ast.parse(text)
    known |= imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            meant(node, known)
        if isinstance(node, ast.Call) and callable(called := meant(node.func, known)):
            plain = [each for each in node.args if not isinstance(each, ast.Starred)]
            names = {each.arg: None for each in node.keywords if each.arg}
            inspect.signature(called).bind_partial(*[None] * len(plain), **names)


@pytest.mark.parametrize(("page", "python"), CALLS, ids=[str(page.relative_to(ROOT)) for page, _ in CALLS])
def test_python_of_the_pages_calls_what_exists(page, python: list[Snippet]):
    known: dict[str, Any] = {}
    for one in python:
        try:
            check(one.text, known)
        except (AttributeError, ImportError, TypeError) as error:
            raise AssertionError(f"{one}: {error}") from error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import daskml_scale as dms\ndms.predicted", AttributeError),
        ("import daskml_scale as dms\ndms.predict(1, 2, outt=3)", TypeError),
        ("from daskml_scale import stepps", AttributeError),
        ("from daskml_scale import steps\nsteps.Keep(off=['km'])", TypeError),
    ],
)
def test_wrong_names_and_arguments_would_be_found(text, error):
    with pytest.raises(error):
        check(text, {})
