"""The table of steps in the documentation is that of the models."""

from __future__ import annotations

import re
from pathlib import Path

from daskml_scale import steps
from daskml_scale.spec.steps import STEPS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "features.md"


def test_the_page_lists_every_step_with_its_settings():
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE))  # fmt: skip
    assert list(listed) == sorted(listed)
    assert listed == {
        name: ", ".join(f"`{field}`" for field in _order(model)) for name, model in sorted(STEPS.items())
    }  # fmt: skip


def _order(model) -> list[str]:
    return list(model.model_fields)


def test_every_step_can_be_imported_from_the_facade():
    assert {getattr(steps, name) for name in steps.__all__} == set(STEPS.values())
