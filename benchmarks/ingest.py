"""How long until many Parquet files are a chunked table, in the files' order and sorted?

Texts become codes with the labels of all files, times whole seconds, chunks have equal lengths. The peers on the same
two workers: ``dask.dataframe.read_parquet`` (categories made known, then ``to_zarr`` column by column), sorted by
``set_index`` (its P2P shuffle); and in one process pandas, by hand. None of the peers compares the
files, remembers what it read, or could go on after a kill. The limit is reading the files with Arrow and writing as
many bytes as the table has, by both cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import daskml_scale as dms

from .common import SLOTS, Bench, Counts, Row, Work, least

SIZES = {"toy": (3, 2_000), "small": (8, 100_000), "full": (32, 1_000_000)}
"""Files, and rows of each."""
GROUP = 100_000
CHUNK = 100_000


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    files, rows = SIZES[bench.size]
    folder = bench.folder / "ingest"
    make(folder, files, rows)
    name = f"{files * rows:,} rows of {files} Parquet files"
    limit = least(partial(bare, folder))
    about = "Arrow reads the files, two threads write the bytes of the table"
    plain, ordered = partial(ours, bench, folder), partial(ours, bench, folder, sort_by="key")
    return bench.compare(
        [
            Work(name, plain, {"dask.dataframe": partial(theirs, bench, folder), "pandas": partial(by_hand, folder)},
                 limit, about),
            Work(f"{name}, sorted", ordered, {"dask.dataframe": partial(theirs, bench, folder, sort_by="key"),
                                              "pandas": partial(by_hand, folder, sort_by="key")}, limit, about),
            Work(f"{name}, one more file", partial(appended, bench, folder), {
                "dask.dataframe": partial(theirs, bench, folder)}, limit / files, f"{about}; of the new file"),
        ]
    )  # fmt: skip


def make(folder: Path, files: int, rows: int) -> None:
    """Write the files."""
    import pandas as pd

    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(files):
        frame = pd.DataFrame(
            {
                "key": chance.integers(0, 10**12, rows),
                "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 10**8, rows), unit="s"),
                "place": chance.choice([f"place {k}" for k in range(500)], rows),
                **{f"x{k}": chance.normal(size=rows) for k in range(5)},
            }
        )
        frame.to_parquet(folder / f"{number:03d}.parquet", row_group_size=GROUP)


def ours(bench: Bench, source: Path, folder: Path, sort_by: str = "") -> Counts:
    """Ingest the files."""
    dms.ingest(
        f"{source}/*.parquet", folder / "t.zarr", chunk=CHUNK, sort_by=[sort_by] * bool(sort_by), client=bench.own
    )
    found = dms.last_run()
    assert found is not None
    return {"units": found.units, "rows": found.rows}


def appended(bench: Bench, source: Path, folder: Path) -> Counts:
    """Ingest all files but one, then the last one: its seconds count."""
    import time

    files = sorted(source.glob("*.parquet"))
    call = partial(dms.ingest, out=folder / "t.zarr", chunk=CHUNK, append=True, client=bench.own)
    call(files[:-1])
    began = time.perf_counter()
    call(files)
    seconds, found = time.perf_counter() - began, dms.last_run()
    assert found is not None
    return {"units": found.units - found.reused, "seconds": seconds}


def theirs(bench: Bench, source: Path, folder: Path, sort_by: str = "") -> Counts:
    """The same with Dask's own DataFrame."""
    import dask
    import dask.array as da
    import dask.dataframe as dd

    with bench.client.as_current(), dask.config.set({"dataframe.convert-string": False}):
        frame = dd.read_parquet(sorted(map(str, source.glob("*.parquet"))), split_row_groups=True)
        frame = frame.categorize(columns=["place"])
        if sort_by:
            frame = frame.set_index(sort_by, shuffle_method="p2p").reset_index()
        frame["place"] = frame["place"].cat.codes
        frame["at"] = frame["at"].astype("int64")
        frame = frame.persist()
        lengths = tuple(map(int, frame.map_partitions(len).compute()))
        out = []
        for name in frame.columns:
            column: Any = frame[name].to_dask_array(lengths=lengths).rechunk(CHUNK)
            out.append(da.to_zarr(column, str(folder / "t.zarr" / name), compute=False))
        dask.compute(*out)
    return {"rows": sum(lengths)}


def by_hand(source: Path, folder: Path, sort_by: str = "") -> Counts:
    """The same with pandas in one process, as long as it fits."""
    import pandas as pd
    import xarray as xr

    frame = pd.concat([pd.read_parquet(path) for path in sorted(source.glob("*.parquet"))], ignore_index=True)
    if sort_by:
        frame = frame.sort_values(sort_by, kind="stable", ignore_index=True)
    codes, labels = pd.factorize(frame["place"], sort=True)
    columns = {name: ("row", frame[name].to_numpy()) for name in frame.columns if name != "place"}
    ds = xr.Dataset({**columns, "place": ("row", codes.astype("int32"), {"categories": list(labels)})})
    ds.chunk(row=CHUNK).to_zarr(folder / "t.zarr", consolidated=False)
    return {"rows": len(frame)}


def bare(source: Path) -> None:
    """Read every file and write as many bytes as the table has, and nothing else."""
    import pyarrow.parquet as parquet

    def one(path: Path) -> None:
        table = parquet.read_table(path, use_threads=False)
        data = os.urandom(1 << 20) * (1 + table.nbytes // (1 << 20))
        target = path.with_suffix(".bare")
        target.write_bytes(data[: table.nbytes])
        target.unlink()

    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(one, sorted(source.glob("*.parquet"))))
