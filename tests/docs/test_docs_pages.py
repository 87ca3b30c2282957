"""Links of the documentation resolve, its YAML fits the models, every page is in the contents, messages are real."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_pages import DOCS, ROOT, Snippet, anchors, pages, prose, snippets
from pydantic import TypeAdapter

from daskml_scale import __all__ as public
from daskml_scale import search, steps
from daskml_scale.plan.records import Record
from daskml_scale.spec.load import load_cluster, load_workflow
from daskml_scale.spec.workflow import AnyStage, Workflow

PAGES = pages()
YAML = [one for page in PAGES for one in snippets(page) if one.language in ("yaml", "yml")]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_internal_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{named(page)} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{named(page)} links to {target}; there are {sorted(anchors(found))}"


def test_every_page_is_in_the_contents_and_the_contents_are_pages():
    listed: list[str] = []

    def collect(entry: Any) -> None:
        if isinstance(entry, str):
            listed.append(entry)
        for below in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            collect(below)

    collect(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("snippet", YAML, ids=str)
def test_yaml_fits_the_models(snippet: Snippet):
    data = yaml.safe_load(snippet.text)
    assert isinstance(data, dict), f"{snippet}: not a mapping"
    if "version" in data:
        (load_workflow if "stages" in data else load_cluster)(snippet.text)
    elif set(data) <= {"classes", "scaling", "dashboard", "runs"}:
        whole = {"version": 1, "name": "part", "backend": "local", "classes": {"cpu": {}}, **data}
        load_cluster(yaml.safe_dump(whole))
    elif "runner" in data and set(data) <= {"classes", "runner"}:
        load_cluster(yaml.safe_dump({**yaml.safe_load((ROOT / "clusters" / "kubernetes.yaml").read_text()), **data}))
    else:
        _stages(snippet, data)


def _stages(snippet: Snippet, data: dict[str, Any]) -> None:
    """Stages of a workflow, one stage, or a search space."""
    shared = {key: data.pop(key) for key in list(data) if key in Workflow.model_fields and key != "stages"}
    for key, value in shared.items():
        TypeAdapter(Workflow.model_fields[key].rebuild_annotation()).validate_python(value)
    stages = data.get("stages", {"one": data} if "kind" in data else data)
    if all(isinstance(value, (list, dict)) and "kind" not in value for value in stages.values()):
        from daskml_scale.spec.space import AnyDistribution

        TypeAdapter(dict[str, AnyDistribution]).validate_python(stages)
        return
    for stage in stages.values():
        TypeAdapter(AnyStage).validate_python(stage)


@pytest.mark.parametrize(
    "snippet", [one for page in PAGES for one in snippets(page) if one.language == "python"], ids=str
)
def test_python_is_python(snippet: Snippet):
    ast.parse(snippet.text)


def _pinned(package: str) -> bool:
    return f"{package}=={version(package)}\n" in (ROOT / "constraints.txt").read_text()


@pytest.mark.skipif(not (_pinned("click") and _pinned("pydantic")), reason="other versions lay out help differently")
def test_generated_pages_are_up_to_date():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, text in generate.pages().items():
        assert (DOCS / "reference" / name).read_text() == text, f"{name}: python docs/generate.py"


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "reference" / "python.md").read_text()
    for name in {*public} - {"__version__", "search", "steps"}:
        assert f"::: daskml_scale.{name}\n" in page
    for name in search.__all__:
        assert f"::: daskml_scale.search.{name}\n" in page
    for name in steps.__all__:
        assert f"| `{name}` |" in page


def test_the_ledger_page_has_every_field_of_a_record():
    page = (DOCS / "reference" / "ledger.md").read_text()
    for name in Record.__dataclass_fields__:
        assert f"`{name}`" in page


@cache
def words() -> str:
    """Return every text constant of the package, parts of formatted ones too, each on a line."""
    found: list[str] = []
    for path in (ROOT / "daskml_scale").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        found += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(" ".join(text.split()) for text in found)


MESSAGES = re.findall(r"^\| `((?:[^`]|``)+)`", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_of_the_troubleshooting_page_are_those_of_the_code(message):
    parts = [part.strip(" :;(),") for part in message.split("...")]
    spoken = [part for part in parts if len(part) > 3]
    assert spoken, message
    for part in spoken:
        assert part in words(), f"nothing in the package says {part!r}"


def test_there_are_messages_to_look_up():
    assert len(MESSAGES) > 30
