"""MLflow, where somebody asked for it: a run of MLflow for a run of ours, and one below it for each trial of a search.

Only the process that holds the run writes, with explicit ids and in batches: MLflow's active run belongs to a thread
and is lost on workers, so nothing here makes one, and what users log themselves is left alone. A resumed run goes on in
the run of MLflow that it has. A server that does not answer costs one note and no work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daskml_scale.errors import UsageError
from daskml_scale.events import Event, RunFinished, RunStarted, StageFinished

SETTING = "daskml-scale.mlflow"
"""Dask configuration with the tracking URI; ``DASK_DASKML_SCALE__MLFLOW`` in the environment."""
NAME = "mlflow.json"
MOST_TRIALS = 1000
"""Trials of a search that get a run, the best ones."""
_MOST_TEXT = 500
_STATES = {"succeeded": "FINISHED", "partial": "FINISHED", "cancelled": "KILLED", "interrupted": "KILLED"}


def wanted() -> str:
    """Return the tracking URI that was asked for; empty for none."""
    import dask.config

    return str(dask.config.get(SETTING, default="") or "")


class Tracker:
    """A sink that writes to MLflow.

    Parameters
    ----------
    uri : str
        Of the tracking server or store.
    folder : Path
        Of the run; remembers what MLflow calls it.
    note : callable
        Told once when MLflow does not answer.

    Raises
    ------
    UsageError
        When MLflow is not installed.
    """

    def __init__(self, uri: str, folder: Path, note: Callable[[str], None]) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise UsageError(
                f"{SETTING} is {uri} and MLflow is not installed; pip install daskml-scale[mlflow]"
            ) from None
        self.client, self.note = MlflowClient(tracking_uri=uri), note
        self.path = folder / NAME
        self.known: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.broken = False

    def sink(self, event: Event) -> None:
        """Take an event; never raises."""
        if self.broken:
            return
        try:
            if isinstance(event, RunStarted):
                self._start(event)
            elif isinstance(event, StageFinished) and event.state == "ok" and "run" in self.known:
                self._stage(event)
            elif isinstance(event, RunFinished) and "run" in self.known:
                self.client.set_terminated(self.known["run"], status=_STATES.get(event.state, "FAILED"))
        except Exception as error:  # a server, a network, a version: none of them is the run's
            self.broken = True
            self.note(f"MLflow does not take this run any more ({type(error).__name__}: {error}); the run goes on")

    def _start(self, event: RunStarted) -> None:
        if "run" not in self.known:
            found = self.client.get_experiment_by_name(event.workflow)
            experiment = found.experiment_id if found else self.client.create_experiment(event.workflow)
            tags = {"mlflow.runName": event.run or event.workflow, "daskml.store": event.store}
            self.known = {"experiment": experiment, "trials": []}
            self.known["run"] = self.client.create_run(experiment, tags=tags).info.run_id
        self.client.update_run(self.known["run"], status="RUNNING")
        self._keep()

    def _stage(self, event: StageFinished) -> None:
        from mlflow.entities import Metric

        stamp = int(event.time * 1000)
        numbers: dict[str, Any] = {"seconds": event.seconds, "units": event.units, "reused": event.reused}
        numbers |= {"rows": event.rows, "cost": event.cost, **dict(event.result.get("metrics") or {})}
        metrics = [
            Metric(f"{event.stage}.{name}", float(value), stamp, 0)
            for name, value in numbers.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        self.client.log_batch(self.known["run"], metrics=metrics)
        trials = event.result.get("trials")
        if isinstance(trials, list):
            self._trials(event.stage, trials, stamp)

    def _trials(self, stage: str, trials: list[Mapping[str, Any]], stamp: int) -> None:
        scored = sorted(
            (trial for trial in trials if isinstance(trial.get("score"), (int, float))),
            key=lambda trial: -trial["score"],
        )
        have = set(self.known["trials"])
        for trial in scored[:MOST_TRIALS]:
            name = f"{stage} trial {trial['trial']}"
            if name not in have:
                self._trial(name, trial, stamp)
                self.known["trials"].append(name)
        self._keep()

    def _trial(self, name: str, trial: Mapping[str, Any], stamp: int) -> None:
        from mlflow.entities import Metric, Param

        tags = {"mlflow.parentRunId": self.known["run"], "mlflow.runName": name}
        child = self.client.create_run(self.known["experiment"], tags=tags).info.run_id
        params = [Param(str(key), str(value)[:_MOST_TEXT]) for key, value in trial["params"].items()]
        metrics = [Metric("score", float(trial["score"]), stamp, int(trial.get("resource") or 0))]
        self.client.log_batch(child, metrics=metrics, params=params)
        self.client.set_terminated(child)

    def _keep(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.known))
