"""Reading the pages of the documentation: links, headings, fenced snippets and the comments that say what they are.

Before a fence may stand ``<!-- run -->`` (it is executed), ``<!-- run: long -->`` (only by ``-m faults_long``), after a
comma ``exit N`` (how a console ends), and ``<!-- file: NAME -->`` (its text is that file).
``<!-- after: PAGE -->`` says that a page goes on from the files of another. All snippets of a page share one folder,
and its Python ones their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"^(?:<!-- (?P<comment>(?:run|file)[^\n]*?) -->\n)?"
    r"(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Snippet:
    """A fenced block. ``line`` is that of its first line of text, ``pace`` is quick or long where it runs."""

    page: str
    line: int
    language: str
    text: str
    file: str = ""
    pace: str = ""
    ends: int = 0

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return every page, and what a repository shows beside them."""
    return [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@cache
def snippets(page: Path) -> tuple[Snippet, ...]:
    """Return the fenced blocks of a page, in their order."""
    text = page.read_text()
    return tuple(_snippet(page, text, match) for match in _FENCE.finditer(text))


def _snippet(page: Path, text: str, match: re.Match[str]) -> Snippet:
    comment = match["comment"] or ""
    run = re.fullmatch(r"run(?:: (long))?(?:, exit (\d+))?", comment)
    assert run or not comment.startswith("run"), f"{page.name}: <!-- {comment} --> is not understood"
    indent = match["indent"]
    lines = [line.removeprefix(indent) for line in match["text"].splitlines()]
    return Snippet(
        page=str(page.relative_to(ROOT)),
        line=text.count("\n", 0, match.start("text")) + 1,
        language=match["language"],
        text="\n".join(lines) + "\n",
        file=comment.removeprefix("file: ") if comment.startswith("file: ") else "",
        pace=(run[1] or "quick") if run else "",
        ends=int(run[2] or 0) if run else 0,
    )


def goes_on_from(page: Path) -> Path | None:
    """Return the page whose snippets run before those of this one."""
    found = re.search(r"^<!-- after: (\S+) -->$", page.read_text(), re.MULTILINE)
    return DOCS / found[1] if found else None


def prose(page: Path) -> str:
    """Return a page without its fenced blocks and inline code."""
    return re.sub(r"`[^`\n]+`", "`code`", _FENCE.sub("", page.read_text()))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return what ``#...`` may name on a page: the slugs of its headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return frozenset(found)
