"""Data that no ledger knows: each stored object is read once, by the unit that needs it, and known from then on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr.storage
from sklearn.linear_model import LinearRegression

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, save_model
from daskml_scale.plan.units import Template, Variable
from daskml_scale.stages.inputs import known_ids
from daskml_scale.storage import stores
from daskml_scale.storage.backend import Local
from daskml_scale.storage.ledger import Ledger

NAMES = ("a", "b", "c", "d")
ROWS, CHUNK = 2_000, 500
Write = Callable[[str, np.ndarray], None]


def by_xarray(url: str, values: np.ndarray) -> None:
    """Write variables with Zarr's own codec, which Zarr reads."""
    ds = xr.Dataset({name: (("row",), values[:, at]) for at, name in enumerate(NAMES)})
    ds.to_zarr(url, encoding={name: {"chunks": [CHUNK]} for name in NAMES}, consolidated=False)


def by_us(url: str, values: np.ndarray) -> None:
    """Write variables with our codec and no ledger."""
    variables = {name: Variable("float32", ("row",), (ROWS,), (CHUNK,)) for name in NAMES}
    stores.create(url, Template("row", ROWS, variables))
    stores.write_region(url, 0, {name: values[:, at] for at, name in enumerate(NAMES)})


def as_matrix(url: str, values: np.ndarray) -> None:
    """Write a feature matrix without a ledger."""
    variables = {
        "features": Variable("float32", ("row", "feature"), values.shape, (CHUNK, len(NAMES))),
        "feature": Variable("string", ("feature",), (len(NAMES),), (len(NAMES),)),
    }
    stores.create(url, Template("row", ROWS, variables, {"row_key": []}, {"feature": list(NAMES)}))
    stores.write_region(url, 0, {"features": values})


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, len(NAMES))).astype("float32")


@pytest.fixture
def bundle(values: np.ndarray, tmp_path: Path) -> Bundle:
    model = LinearRegression().fit(values, values[:, 0] - values[:, 2])
    return save_model(model, tmp_path / "m", schema={"features": list(NAMES), "dtype": "float32"})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this process reads each chunk of the input."""
    found: Counter[str] = Counter()
    mine, theirs = Local.read, zarr.storage.LocalStore.get

    def read(self: Any, url: str) -> bytes | None:
        found[url.partition("/in.zarr/")[2]] += 1
        return mine(self, url)

    async def get(self: Any, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        found[key if self.root.name == "in.zarr" else ""] += 1
        return await theirs(self, key, prototype, byte_range)

    monkeypatch.setattr(Local, "read", read)
    monkeypatch.setattr(zarr.storage.LocalStore, "get", get)
    return found


def chunks(reads: Counter[str]) -> dict[str, int]:
    return {key: count for key, count in reads.items() if "/c/" in key and not key.startswith("feature/")}


@pytest.mark.parametrize("write", [by_xarray, by_us, as_matrix])
def test_a_first_prediction_reads_each_object_once_and_a_second_none(
    write: Write, values: np.ndarray, bundle: Bundle, reads: Counter[str], tmp_path: Path
) -> None:
    url = f"{tmp_path}/in.zarr"
    write(url, values)
    reads.clear()
    found = dms.predict(bundle, url, tmp_path / "p.zarr")
    np.testing.assert_allclose(found.prediction.values, bundle.predict(values), rtol=1e-5)
    assert len(chunks(reads)) == (4 if write is as_matrix else 16)
    assert set(chunks(reads).values()) == {1}
    reads.clear()
    dms.predict(bundle, url, tmp_path / "p.zarr")
    assert not chunks(reads)


@pytest.mark.parametrize("write", [by_xarray, by_us, as_matrix])
def test_what_was_noticed_is_what_hashing_finds(
    write: Write, values: np.ndarray, bundle: Bundle, tmp_path: Path
) -> None:
    url = f"{tmp_path}/in.zarr"
    write(url, values)
    dms.predict(bundle, url, tmp_path / "p.zarr")
    noticed = {key: one for key, one in known_ids(f"{tmp_path}/p.ledger").items() if key.startswith(url)}
    hashed: dict[str, tuple[int, int, str]] = {}
    stores.snapshot(url, known=hashed)
    assert noticed.items() <= hashed.items()
    assert len(noticed) >= (4 if write is as_matrix else 16)
    Path(f"{tmp_path}/p.ledger/ids.json").unlink()  # hashed anew, it is the same: nothing runs
    dms.predict(bundle, url, tmp_path / "p.zarr")
    row = dms.last_run()
    assert row is not None
    assert row.reused == row.units == 4


def test_a_run_that_is_interrupted_hashes_nothing_again(
    values: np.ndarray, bundle: Bundle, reads: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{tmp_path}/in.zarr"
    by_us(url, values)

    def interrupted(self: Any, records: Any) -> None:
        append(self, records)
        raise KeyboardInterrupt

    append = Ledger.append
    monkeypatch.setattr(Ledger, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dms.predict(bundle, url, tmp_path / "p.zarr")
    monkeypatch.setattr(Ledger, "append", append)
    left = 4 - len(Ledger(f"{tmp_path}/p.ledger").records())
    assert left < 4
    reads.clear()
    dms.predict(bundle, url, tmp_path / "p.zarr")
    assert len(chunks(reads)) == sum(chunks(reads).values()) == 4 * left


def test_a_changed_object_runs_its_unit_only(
    values: np.ndarray, bundle: Bundle, reads: Counter[str], tmp_path: Path
) -> None:
    url = f"{tmp_path}/in.zarr"
    by_us(url, values)
    dms.predict(bundle, url, tmp_path / "p.zarr")
    stores.write_region(url, CHUNK, {"b": np.ones(CHUNK, "float32")})
    reads.clear()
    dms.predict(bundle, url, tmp_path / "p.zarr")
    row = dms.last_run()
    assert row is not None
    assert (row.units, row.reused) == (4, 3)
    assert chunks(reads) == {"a/c/1": 1, "b/c/1": 2, "c/c/1": 1, "d/c/1": 1}  # b to see that it is another


def test_an_object_that_changes_after_the_plan_is_not_taken_for_what_the_plan_saw(
    values: np.ndarray, tmp_path: Path
) -> None:
    url = f"{tmp_path}/in.zarr"
    by_us(url, values)
    found = stores.snapshot(url, known={}, lazy=True)
    assert found is not None
    later = found.later("a")
    before = stores.snapshot(url).ids["a"]  # type: ignore[union-attr]
    assert later[0] == before[0]
    stores.write_region(url, CHUNK, {"a": np.ones(CHUNK, "float32")})
    assert later[1] not in (before[1], stores.snapshot(url).ids["a"][1])  # type: ignore[union-attr]
    assert later[2:] == before[2:]
    assert len(later) == 4
