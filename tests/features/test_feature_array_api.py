"""The numeric kernels run on arrays of any library that keeps to the array API, and give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import kernels
from daskml_scale.stages.features.program import parse_steps
from daskml_scale.stages.features.rowwise import rowwise

X = np.array([0.5, np.nan, -2.0, 7.25, 0.0, np.inf])
Y = np.array([3.0, 1.0, 4.0, -1.0, np.nan, 5.0])
CODES = np.array([0, 2, -1, 1, 2, 0], dtype="int32")
LABELS = ("a", "b", "c")
STEPS = [
    ({"keep": {"of": ["x", "n"]}}, None),
    ({"cyclical": {"of": ["x", "y"], "periods": [24, 7]}}, None),
    ({"standardize": {"of": ["x", "y"]}}, {"x": [1.5, 2.0], "y": [0.0, 0.5]}),
    ({"robust": {"of": ["x"]}}, {"x": [1.5, 2.0]}),
    ({"min_max": {"of": ["x"]}}, {"x": [-2.0, 7.25]}),
    ({"log": {"of": ["x"]}}, None),
    ({"log": {"of": ["x"], "plus_one": False}}, None),
    ({"clip": {"of": ["x"], "low": -1.0, "high": 2.5}}, None),
    ({"bin": {"of": ["x"], "bins": 3}}, {"x": [-2.0, 0.0, 0.5, 7.25]}),
    ({"impute": {"of": ["x", "y"], "by": "mean", "indicator": True}}, {"x": 1.25, "y": None}),
    ({"impute": {"of": ["x"], "by": "constant", "value": 3.0}}, None),
    ({"interactions": {"of": ["x", "y", "n"]}}, None),
    ({"pca": {"of": ["x", "y"], "components": 2}}, {"mean": [0.5, 2.0], "components": [[0.6, 0.8], [0.8, -0.6]]}),
    ({"one_hot": {"of": "c", "levels": ["a", "c"]}}, {"levels": ["a", "c"]}),
    ({"one_hot": {"of": "c", "levels": ["a"], "unknown": "other"}}, {"levels": ["a"]}),
    ({"one_hot": {"of": "c", "levels": ["b", "z"]}}, None),
    ({"cast": {"of": ["x", "c"], "to": "int8"}}, None),
    ({"cast": {"of": ["x"], "to": "bool"}}, None),
    ({"cast": {"of": ["x", "y"], "to": "float32"}}, None),
    ({"rename": {"of": {"z": "x"}}}, None),
    ({"count": {"of": "c", "share": True}}, {"c": {"rows": 5, "counts": {"a": 2, "c": 3}}}),
    ({"hashing": {"of": "c", "buckets": 4}}, None),
]


def columns(asarray) -> dict:
    codes = Coded(asarray(CODES), LABELS)
    return {"x": asarray(X), "y": asarray(Y), "n": asarray(np.arange(6)), "c": codes}


def made(step: dict, learnt: object, asarray) -> list:
    (parsed,) = parse_steps([step])
    return [*rowwise(parsed, columns(asarray), learnt, len(X))]


@pytest.mark.parametrize(
    ("step", "learnt"), STEPS, ids=lambda value: next(iter(value)) if isinstance(value, dict) else ""
)
def test_kernels_keep_to_the_array_api(step, learnt):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    found = made(step, learnt, strict.asarray)
    assert all(type(array).__module__.startswith("array_api_strict") for array in found)
    for ours, plain in zip(found, made(step, learnt, np.asarray), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), plain)


def test_ordinal_codes_keep_to_the_array_api():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    found = kernels.ordinal(Coded(strict.asarray(CODES), LABELS), ("c", "a"), -1)
    assert np.asarray(found).tolist() == [1, 0, -1, -1, 0, 1]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("step", "learnt"), STEPS, ids=lambda value: next(iter(value)) if isinstance(value, dict) else ""
)
def test_kernels_run_on_a_gpu(step, learnt):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"there is no CUDA device: {error}")
    found = made(step, learnt, cupy.asarray)
    assert all(isinstance(array, cupy.ndarray) for array in found)
    for ours, plain in zip(found, made(step, learnt, np.asarray), strict=True):
        np.testing.assert_allclose(cupy.asnumpy(ours), plain, rtol=1e-12)
