"""Which codec, how large an object, how many requests at a time? The tables of docs/reference/storage.md.

``python -m benchmarks.layout`` prints them as Markdown. CPU seconds, not wall time, for what one core does; medians.
The codecs run inside Zarr's own write and read of an array in memory. Requests are timed against the server of
the tests behind a proxy on loopback that answers each request ``LATENCY`` seconds late, as a distant
bucket does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

MIB = 2**20
LATENCY = 0.02
"""Seconds that a request to a bucket takes at least."""
DISK, BUCKET = 500e6, 100e6
"""Bytes per second of a local disk, and of one worker's share of a bucket."""


def columns(cells: int) -> dict[str, np.ndarray]:
    """Return values as tables and cubes hold them, each of shape (cells,)."""
    rng = np.random.default_rng(0)
    return {
        "float32 sensor drift": (20 + np.cumsum(rng.normal(0, 0.01, cells))).astype("float32"),
        "float32 one decimal": rng.normal(20, 5, cells).round(1).astype("float32"),
        "float32 probabilities": rng.beta(0.5, 2, cells).astype("float32"),
        "float64 features, 10 % missing": np.where(rng.random(cells) < 0.1, np.nan, rng.normal(0, 1, cells)),
        "int64 sorted times": 1_357_000_000 + np.sort(rng.integers(0, 30_000_000, cells)),
        "int32 category codes": rng.integers(0, 16, cells).astype("int32"),
        "uint8 status": (rng.random(cells) < 0.001).astype("uint8") + np.uint8(1),
    }


def codecs() -> dict[str, Any]:
    """Return the codecs that are compared."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    return {
        "zstd 0 (Zarr's default)": ZstdCodec(level=0),
        "zstd 0, checksum": ZstdCodec(level=0, checksum=True),
        "zstd 1": ZstdCodec(level=1),
        "blosc lz4 5, shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
        "blosc lz4 5, shuffle, crc32c": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()],
        "blosc lz4 5, bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
        "blosc zstd 1, shuffle": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        "blosc zstd 1, bitshuffle": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        "blosc zstd 3, bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
    }


def median_cpu(function: Callable[[], object], repeat: int) -> float:
    """Return the median CPU seconds of this process for a call."""
    found = []
    for _ in range(repeat):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return statistics.median(found)


def codec_table(repeat: int, megabytes: int = 2) -> Iterator[str]:
    """Yield the table of codecs: all columns together, weighted alike by bytes."""
    import zarr

    yield "| codec | stored / raw | write, MB/s | read, MB/s | 1 GB both ways, disk | bucket | damage noticed |"
    yield "|---|---|---|---|---|---|---|"
    for name, codec in codecs().items():
        ratios, writes, reads = [], [], []
        for values in columns(megabytes * MIB // 8).values():
            store: dict[str, Any] = {}
            array = zarr.create_array(
                store, shape=values.shape, chunks=values.shape, dtype=values.dtype, compressors=codec
            )
            writes.append(median_cpu(lambda a=array, v=values: a.__setitem__(..., v), repeat) / values.nbytes)
            reads.append(median_cpu(lambda a=array: a[...], repeat) / values.nbytes)
            ratios.append(len(store["c/0"]) / values.nbytes)
        ratio, write, read = (statistics.fmean(each) for each in (ratios, writes, reads))
        disk, bucket = (1e9 * (write + read + 2 * ratio / speed) for speed in (DISK, BUCKET))
        row = f"| {name} | {ratio:.3f} | {1e-6 / write:,.0f} | {1e-6 / read:,.0f} | {disk:.1f} s | {bucket:.1f} s"
        yield f"{row} | {_found(codec)} of 32 |"


def _found(codec: Any) -> int:
    """Return at how many of 32 places of an object a changed byte is an error or harmless, and not another value."""
    import zarr

    values = np.arange(100_000.0)
    noticed = 0
    for place in range(32):
        store: dict[str, Any] = {}
        zarr.create_array(store, shape=values.shape, chunks=values.shape, dtype="f8", compressors=codec)[...] = values
        content = bytearray(store["c/0"].to_bytes())
        content[(place + 1) * len(content) // 34] ^= 0x55
        store["c/0"] = type(store["c/0"]).from_bytes(bytes(content))
        try:
            noticed += bool(np.array_equal(zarr.open_array(store, mode="r")[...], values))
        except (RuntimeError, ValueError):
            noticed += 1
    return noticed


def size_table(repeat: int) -> Iterator[str]:
    """Yield the table of object sizes: our region writes and reads per MB, and rows of a shard read alone."""
    from daskml_scale.plan.units import Template, Variable
    from daskml_scale.storage import open_arrays, stores

    yield "| stored object | chunk in it | write, CPU ms/MB | read, CPU ms/MB | read one chunk of it, CPU ms |"
    yield "|---|---|---|---|---|"
    kib = 1024
    for size, chunk in [(64 * kib, 64 * kib), (256 * kib, 256 * kib), (MIB, MIB), (4 * MIB, 4 * MIB), (16 * MIB,) * 2,
                        (4 * MIB, 256 * kib), (16 * MIB, MIB), (64 * MIB, MIB)]:  # fmt: skip
        rows, per_chunk = size // 64, chunk // 64
        values = np.random.default_rng(0).normal(20, 5, (rows, 16)).round(1).astype("float32")
        shards = None if size == chunk else (rows, 16)
        with tempfile.TemporaryDirectory() as folder, open_arrays.pinned(open_arrays.new_pass()):
            url = f"{folder}/x.zarr"
            regions = max(1, 16 * MIB // size)
            variable = Variable("float32", ("row", "column"), (rows * regions, 16), (per_chunk, 16), shards)
            stores.create(url, Template("row", rows * regions, {"x": variable}))

            def write(url: str = url, rows: int = rows, regions: int = regions, values: np.ndarray = values) -> None:
                for region in range(regions):
                    stores.write_region(url, region * rows, {"x": values})

            def read(url: str = url, rows: int = rows, regions: int = regions) -> None:
                for region in range(regions):
                    stores.read_raw(url, "x", region * rows, (region + 1) * rows)

            total = regions * size / 1e6
            wrote, took = median_cpu(write, repeat), median_cpu(read, repeat)
            one = median_cpu(lambda url=url, stop=per_chunk: stores.read_raw(url, "x", 0, stop), repeat)
        shown, part = (f"{n // MIB} MiB" if n >= MIB else f"{n // kib} KiB" for n in (size, chunk))
        yield f"| {shown} | {part} | {1e3 * wrote / total:.1f} | {1e3 * took / total:.1f} | {1e3 * one:.1f} |"


@contextmanager
def late(port: int) -> Iterator[int]:
    """Run a proxy to a port of this machine that delays what is sent to it by ``LATENCY``; give its port."""
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        try:
            while data := await reader.read(1 << 20):
                await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pump(reader, there_writer, 0.0), pump(there_reader, writer, LATENCY), return_exceptions=True
        )

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await server.serve_forever()

    def run() -> None:
        asyncio.set_event_loop(loop)
        task = loop.create_task(serve())
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join()


def request_table(repeat: int) -> Iterator[str]:
    """Yield the table of concurrency: a unit of 16 objects written to, and read from, a bucket."""
    import zarr

    from daskml_scale.plan.units import Template, Variable
    from daskml_scale.storage import open_arrays, stores
    from daskml_scale.storage.buckets import Buckets

    from .servers import s3_server

    yield "| at a time | write 16 objects of 256 KiB, ms | read them, ms |"
    yield "|---|---|---|"
    with s3_server() as server, late(int(server.url.rpartition(":")[2])) as port:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        url = f"{server.make_bucket('layout')}/x.zarr"
        rows = 16 * 4096
        stores.create(url, Template("row", rows, {"x": Variable("float32", ("row", "c"), (rows, 16), (4096, 16))}))
        values = np.random.default_rng(0).random((rows, 16)).astype("float32")
        for number in (1, 2, 4, 8, 16):
            Buckets.concurrency = number
            wrote, took = [], []
            with zarr.config.set({"async.concurrency": number}), open_arrays.pinned(open_arrays.new_pass()):
                stores.read_raw(url, "x", 0, 1)
                for _ in range(repeat):
                    started = time.perf_counter()
                    stores.write_region(url, 0, {"x": values})
                    wrote.append(time.perf_counter() - started)
                    started = time.perf_counter()
                    stores.read_raw(url, "x", 0, rows)
                    took.append(time.perf_counter() - started)
            yield f"| {number} | {1e3 * statistics.median(wrote):.0f} | {1e3 * statistics.median(took):.0f} |"


TABLES = {"codecs": codec_table, "sizes": size_table, "requests": request_table}


def main() -> None:
    """Print the tables that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], default=list(TABLES))
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    for name in chosen.tables:
        print(f"\n{name}\n")
        for line in TABLES[name](chosen.repeat):
            print(line, flush=True)


if __name__ == "__main__":
    main()
