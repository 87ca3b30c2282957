"""Batches on a device: decisions against a simulated device, and calls that lose and repeat no row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.artifacts.inner_batches import FIRST, MOST, Batches, after, in_batches, too_large


class Full(RuntimeError):
    """A device without room."""


class Device:
    """Takes ``fixed + each * rows`` seconds per batch, and at most ``room`` rows."""

    def __init__(self, fixed: float, each: float, room: int) -> None:
        self.fixed, self.each, self.room, self.now, self.sizes = fixed, each, room, 0.0, list[int]()

    def call(self, X: np.ndarray) -> np.ndarray:
        if len(X) > self.room:
            raise Full
        self.sizes.append(len(X))
        self.now += self.fixed + self.each * len(X)
        return X * 2

    def clock(self) -> float:
        return self.now


@given(st.floats(0, 1), st.floats(1e-7, 1e-3), st.integers(1, 100_000), st.integers(0, 60_000))
@settings(max_examples=80, deadline=None)
def test_every_row_is_predicted_once_in_order_whatever_the_device(
    fixed: float, each: float, room: int, rows: int
) -> None:
    device, X = Device(fixed, each, room), np.arange(rows, dtype="float64")
    found, state = in_batches(device.call, X, Batches(), Full, device.clock)
    assert np.array_equal(found, X * 2)
    assert max(device.sizes) <= room
    assert 1 <= state.rows <= MOST


@given(st.floats(1e-5, 1), st.floats(1e-7, 1e-3))
@settings(max_examples=60, deadline=None)
def test_it_settles_where_another_doubling_gains_less_than_five_per_cent(fixed: float, each: float) -> None:
    state = Batches()
    while not state.settled:
        state = after(state, state.rows, fixed + each * state.rows)

    def rate(rows: int) -> float:
        return rows / (fixed + each * rows)

    assert rate(2 * state.rows) < 1.05 * rate(state.rows) or 2 * state.rows >= MOST
    assert state.rows in (FIRST // 2, FIRST) or rate(state.rows) >= 1.05 * rate(state.rows // 2)
    assert after(state, state.rows, 1e9) == state


@given(st.integers(1, 10**7), st.floats(0, 1e9), st.booleans())
def test_out_of_memory_halves_and_settles_until_one_row_is_left(rows: int, rate: float, settled: bool) -> None:
    state: Batches | None = Batches(rows, rate, settled)
    steps = 0
    while state is not None and state.rows > 1:
        smaller = too_large(state)
        assert smaller is not None
        assert smaller.settled
        assert smaller.rows == state.rows // 2
        state, steps = smaller, steps + 1
    assert too_large(Batches(1)) is None
    assert steps <= 24


def test_a_batch_that_is_not_full_teaches_nothing() -> None:
    assert after(Batches(), FIRST - 1, 1e-9) == Batches()


def test_a_row_that_does_not_fit_is_raised() -> None:
    device = Device(0, 1, 0)
    with pytest.raises(Full):
        in_batches(device.call, np.zeros(5), Batches(), Full, device.clock)


def test_what_was_learnt_is_used_again() -> None:
    device = Device(0, 1e-6, 100)
    _, state = in_batches(device.call, np.zeros(1000), Batches(), Full, device.clock)
    assert state == Batches(64, state.rate, settled=True)
    device.sizes.clear()
    in_batches(device.call, np.zeros(1000), state, Full, device.clock)
    assert device.sizes[0] == 64


@pytest.mark.gpu
def test_a_module_runs_on_the_device_and_learns_its_batch() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from daskml_scale.artifacts.kind_torch import TorchModel

    net = torch.nn.Linear(4, 1).eval()
    X = np.random.default_rng(0).normal(size=(100_000, 4)).astype("float32")
    expected = net(torch.as_tensor(X)).detach().numpy()[:, 0]
    model = TorchModel(net)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-5)
    assert model.batches.rows > FIRST


@pytest.mark.gpu
@pytest.mark.parametrize("wrapped", [False, True])
def test_boosted_trees_run_on_the_device_and_learn_their_batch(wrapped: bool) -> None:
    from daskml_scale.artifacts.kind_xgboost import XgbClassifier, XgbModel, device_arrays

    xgboost = pytest.importorskip("xgboost")
    if device_arrays() is None:
        pytest.skip("no CUDA device, or no CuPy")
    X = np.random.default_rng(0).normal(size=(100_000, 4)).astype("float32")
    fitted = xgboost.XGBClassifier(n_estimators=20, device="cpu").fit(X[:5_000], X[:5_000, 0] > 0)
    expected = fitted.predict_proba(X)[:, 1]
    model = XgbClassifier(fitted) if wrapped else XgbModel(fitted.get_booster())
    found = model.predict_proba(X)[:, 1] if isinstance(model, XgbClassifier) else model.predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert model.batches is not None
    assert model.batches.rows > FIRST


@pytest.mark.gpu
def test_a_graph_runs_on_the_device_and_learns_its_batch() -> None:
    from daskml_scale.artifacts.kind_onnx import DEVICE, OnnxModel

    runtime, convert = pytest.importorskip("onnxruntime"), pytest.importorskip("skl2onnx")
    if DEVICE not in runtime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA")
    from sklearn.linear_model import LinearRegression

    X = np.random.default_rng(0).normal(size=(100_000, 4)).astype("float32")
    fitted = LinearRegression().fit(X, X[:, 0] - X[:, 1])
    model = OnnxModel(convert.to_onnx(fitted, X[:1]).SerializeToString())
    np.testing.assert_allclose(model.predict(X), fitted.predict(X), rtol=1e-3, atol=1e-4)
    assert model.batches.rows > FIRST
