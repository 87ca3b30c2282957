"""Chunks encoded without Zarr's event loop: byte for byte what Zarr writes, and read back as Zarr reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec

from daskml_scale.errors import StoreError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import arrays, files, open_arrays, stores
from daskml_scale.storage.direct import direct

KINDS = ("bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64", "datetime64[s]")


@st.composite
def stored(draw: st.DrawFn) -> tuple[Variable, np.ndarray]:
    """Return a variable and its values, of which many are the fill value."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, size + 1)) for size in shape)
    dtype = np.dtype(draw(st.sampled_from(KINDS)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = random.integers(0, 3, shape).astype(dtype)
    if dtype.kind in "fc":
        values[random.random(shape) < draw(st.sampled_from([0, 0.5, 1]))] = np.nan
        values *= -1  # zeros of both signs
    fill = draw(st.sampled_from([0, 1] if dtype.kind not in "fc" else [np.nan, 0.0]))
    codec = draw(st.sampled_from(["", "zstd:3", "lz4hc:1", "none"]))
    dims = tuple(f"d{axis}" for axis in range(len(shape)))
    shards = None
    if draw(st.booleans()):
        axis, count = draw(st.integers(0, len(shape) - 1)), draw(st.integers(1, 3))
        shards = tuple(size * count if at == axis else size for at, size in enumerate(chunks))
    return Variable(dtype.name, dims, shape, chunks, shards, fill=fill, codec=codec), values


def by_zarr(found: arrays.Opened, region: tuple[slice, ...], values: np.ndarray) -> Mapping[str, bytes | None]:
    found.encoder[region] = values
    caught = {key: None if value is None else value.to_bytes() for key, value in found.caught.items()}
    found.caught.clear()
    return caught


@settings(max_examples=60, deadline=None)
@given(stored())
def test_objects_are_those_of_zarr_and_any_part_is_read_back(case):
    variable, values = case
    url = "memory://direct/a.zarr"
    stores.create(url, Template("d0", variable.shape[0], {"x": variable}))
    found = open_arrays.opened(url, "x")
    assert found.direct is not None
    theirs = by_zarr(found, tuple(map(slice, variable.shape)), values)
    written = stores.write_region(url, 0, {"x": values})
    assert set(written) == {f"x/{key}" for key in theirs}
    assert {key: files.read_bytes(f"{url}/{key}") for key in written} == {f"x/{k}": v for k, v in theirs.items()}
    whole = zarr.open_array(arrays.zarr_store(url)[0], path="x", mode="r")
    for region in ([(0, size) for size in values.shape], [(size // 3, size - size // 4) for size in values.shape]):
        place = tuple(slice(*part) for part in region)
        mine = stores.read_region(url, "x", region)
        assert mine.dtype == whole.dtype
        np.testing.assert_array_equal(mine, whole[place])
        np.testing.assert_array_equal(mine, values[place])
    stores.remove(url)


@settings(max_examples=30, deadline=None)
@given(stored(), st.sampled_from(["the same", "longer", "other codec"]))
def test_what_is_copied_as_stored_is_what_encoding_its_values_makes(case, other):
    variable, values = case
    urls = [f"memory://direct/{name}.zarr" for name in ("from", "copied", "encoded")]
    rows, more = variable.shape[0], variable.chunks[0] * (other == "longer")
    codec = "zstd:1" if other == "other codec" else variable.codec
    theirs = replace(variable, shape=(rows + more, *variable.shape[1:]), codec=codec)
    for url, each in zip(urls, (theirs, variable, variable), strict=True):
        stores.create(url, Template("d0", each.shape[0], {"x": each}))
    there = np.concatenate([values, np.repeat(values[-1:], more, axis=0)])
    stores.write_region(urls[0], 0, {"x": there})
    written = stores.write_region(urls[1], 0, {"x": stores.Stored(urls[0], "x", 0, rows)})
    assert written.keys() == (expected := stores.write_region(urls[2], 0, {"x": values})).keys()
    assert [each[:2] for each in written.values()] == [each[:2] for each in expected.values()]
    np.testing.assert_array_equal(stores.read_region(urls[1], "x", [(0, rows)]), values)
    for url in urls:
        stores.remove(url)


def test_a_region_is_understood_as_slices_are(tmp_path):
    url = str(tmp_path / "a.zarr")
    stores.create(url, Template("row", 5, {"x": Variable("int32", ("row", "f"), (5, 2), (2, 2))}))
    values = np.arange(10, dtype="int32").reshape(5, 2)
    stores.write_region(url, 0, {"x": values})
    for start, stop in ((0, 99), (3, 3), (4, 2), (5, 9), (1, 4)):
        np.testing.assert_array_equal(stores.read_region(url, "x", [(start, stop)]), values[start:stop])


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": ">i4"},
        {"dtype": "i4", "filters": [TransposeCodec(order=(1, 0))]},
        {"dtype": "i4", "compressors": None, "shards": (4, 4)},
        {"dtype": "i4"},  # Zarr's own zstd
        {"dtype": "str"},
        {"dtype": "i4", "compressors": [Crc32cCodec(), BloscCodec()]},
    ],
    ids=["big-endian", "transposed", "sharded", "zstd", "text", "other order"],
)
def test_arrays_of_other_kinds_are_left_to_zarr(tmp_path, options):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("x", shape=(4, 4), chunks=(2, 2), **options)
    values = np.arange(16).reshape(4, 4).astype("T" if options["dtype"] == "str" else options["dtype"])
    array[:] = values
    assert direct(array) is None
    np.testing.assert_array_equal(stores.read_region(str(tmp_path / "a.zarr"), "x", [(1, 3)]), values[1:3])


@pytest.mark.parametrize("codec", ["", "none"])
@pytest.mark.parametrize("chunk", [64, 16], ids=["chunk", "shard"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "longer"])
def test_a_damaged_object_is_never_values(tmp_path, codec, chunk, damage):
    url = str(tmp_path / "a.zarr")
    variable = Variable("float64", ("row",), (64,), (chunk,), None if chunk == 64 else (64,), codec=codec)
    copy = str(tmp_path / "b.zarr")
    for each in (url, copy):
        stores.create(each, Template("row", 64, {"x": variable}))
    stores.write_region(url, 0, {"x": np.arange(64.0)})
    place = tmp_path / "a.zarr" / "x" / "c" / "0"
    whole = place.read_bytes()
    for at in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[at] ^= 4
        place.write_bytes({"cut": whole[:at], "empty": b"", "flipped": bytes(flipped), "longer": whole + b"0"}[damage])
        with pytest.raises(StoreError, match="cannot be decoded"):
            stores.read_region(url, "x", [(0, 64)])
        with pytest.raises(StoreError, match="cannot be decoded"):
            stores.write_region(copy, 0, {"x": stores.Stored(url, "x", 0, 64)})
    assert not (tmp_path / "b.zarr" / "x" / "c").exists()


def test_without_a_checksum_a_cut_object_is_refused_by_its_sizes(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array: Any = group.create_array("x", shape=(512,), chunks=(512,), dtype="f8", compressors=[BloscCodec()])
    array[:] = np.random.default_rng(0).random(512)
    assert direct(array) is not None
    place = tmp_path / "a.zarr" / "x" / "c" / "0"
    whole = place.read_bytes()
    for size in (0, 3, 15, 16, len(whole) // 2, len(whole) - 1):
        place.write_bytes(whole[:size])
        with pytest.raises(StoreError, match="cannot be decoded"):
            stores.read_region(str(tmp_path / "a.zarr"), "x", [(0, 512)])
