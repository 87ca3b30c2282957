"""A small store with tables, features and a trained model, made once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from model_helpers import features_stage, train, write_inputs

from daskml_scale.stages.run import run_stage


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with raw tables, features and a model; tests copy it."""
    root = tmp_path_factory.mktemp("trained")
    write_inputs(root)
    run_stage(features_stage(root))
    run_stage(train(root))
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "store")
    return tmp_path / "store"
