"""What a search keeps under ``out=``: one ledger record per fit, so that no finished fit is made twice.

A fit is known by what it depends on (code, parameters by value, rows, split, scorer), not by its place in
the search: a larger grid, another order or another class of search takes what it finds. Records are
durable before the engine lets go of the results. Fits whose worker died are not recorded: they are tried
again. Nothing here runs a fit.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import joblib

from daskml_scale.errors import UsageError
from daskml_scale.plan.records import OK, Record, digest
from daskml_scale.stages.code import code_digest
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold
from daskml_scale.storage.urls import is_icechunk

from ._compat import LOST, Round, Scored
from .states import check_owner, digest_of, whole
from .stored import StoredRows

FORMAT = "fit-1"
_IRRELEVANT = ("verbose", "return_n_test_samples", "return_times", "return_parameters")
_BESIDE = ("params", "split", "resource", "state")
_SHOWN = 300
"""Characters of a parameter's value in a record, for people."""


class FitLog:
    """The fits under one folder.

    Parameters
    ----------
    out : str or path
        Folder; it may hold the fits of many searches.
    owner : str
        Shown to whoever finds the folder in use.

    Raises
    ------
    UsageError
        When ``out`` cannot be a folder of results.
    ConflictError
        When another process writes there.
    """

    def __init__(self, out: str | os.PathLike[str], owner: str) -> None:
        self.url = checked(out)
        self.reused, self.search, self._sampler = 0, "", ""
        self._stack = ExitStack()
        self._stack.enter_context(hold(self.url, owner))
        self.ledger = Ledger(files.join(self.url, "search.ledger"))
        self.records = self.ledger.records()
        self._heads: dict[tuple[int, int], str] = {}
        self._held: list[Any] = []

    def close(self) -> None:
        """Join the segments and let others write."""
        try:
            self.ledger.compact()
        finally:
            self._stack.close()

    def segment_key(self, head: str, params: Mapping[str, Any], split: str, resource: int) -> str:
        """Return the key of a trial with so much of its resource on one split."""
        return digest(head, identity(params), split, resource)

    def add_segments(
        self,
        done: Iterable[tuple[str, tuple[int, int], Scored, Mapping[str, Any], int, str]],
        asked: Mapping[int, tuple[Mapping[str, Any], Any]],
        sampler: bytes | None,
    ) -> None:
        """Keep the results of segments, the parameters of trials that reported for the first time, and the sampler.

        Parameters
        ----------
        done : iterable of (key, (trial, split), result, parameters, resource, digest of the model)
        asked : mapping of trial to (parameters, what the sampler wants to know again)
        sampler : bytes or None
            Its pickled state.
        """
        results = [
            self._record(key, fit, {**result, "resource": resource, "state": state}, params)
            for key, fit, result, params, resource, state in done
            if not str(result["fit_error"]).startswith(LOST)
        ]
        before, kept = self._sampler, [] if sampler is None else self._keep_sampler(sampler)
        self.ledger.append([*(self._asked(trial, *told) for trial, told in asked.items()), *kept, *results])
        if kept and before:  # only now no record names it any more
            files.remove(self._sampler_url(before))

    def _keep_sampler(self, state: bytes) -> list[Record]:
        found = digest_of(state)
        if found == self._sampler:
            return []
        files.write_bytes(self._sampler_url(found), state)
        self._sampler = found
        return [Record(f"sampler/{self.search}", found, found, OK)]

    def sampler(self) -> bytes | None:
        """Return the sampler's state of an earlier run."""
        record = self.records.get(f"sampler/{self.search}")
        self._sampler = "" if record is None else record.digest
        return None if record is None else whole(self._sampler_url(record.digest), record.digest)

    def _sampler_url(self, digest: str) -> str:
        return files.join(self.url, f"search.sampler-{self.search[:16]}-{digest[:16]}.pkl")

    def asked(self, search: str) -> None:
        """Say which search the trials belong to: from here on, pickles of earlier runs may be loaded.

        Raises
        ------
        UntrustedError
            When another user wrote them.
        """
        check_owner(self.url)
        self.search = search

    def params_of(self, trial: int) -> dict[str, Any] | None:
        """Return the parameters that a trial of this search had in an earlier run."""
        found: dict[str, Any] | None = self._trial(trial, 0)
        return found

    def raw_of(self, trial: int) -> Any:
        """Return what else the sampler kept of a trial of an earlier run."""
        return self._trial(trial, 1)

    def _trial(self, trial: int, part: int) -> Any:
        record = self.records.get(f"trial/{self.search}/{trial:06d}")
        return None if record is None else pickle.loads(base64.b64decode(record.result["pickled"]))[part]

    def _asked(self, trial: int, params: Mapping[str, Any], raw: Any) -> Record:
        import cloudpickle

        pickled = base64.b64encode(cloudpickle.dumps((dict(params), raw))).decode()
        known = identity(params)
        return Record(
            f"trial/{self.search}/{trial:06d}", known, known, OK, result={"pickled": pickled, "params": shown(params)}
        )

    def head(self, work: Round, *more: Any) -> str:
        """Return the digest of what all fits of a round depend on, apart from parameters and rows."""
        data = (id(work.X), id(work.y))
        if data not in self._heads:
            self._held.append((work.X, work.y))  # keeps the ids from being used again
            self._heads[data] = identity([work.X, work.y])
        options = {name: value for name, value in work.options.items() if name not in _IRRELEVANT}
        return digest(FORMAT, identity(work.estimator), self._heads[data], identity(options), *map(identity, more))

    def keys(self, work: Round) -> dict[tuple[int, int], str]:
        """Return the key of each (candidate, split)."""
        head, splits = self.head(work), work.split_digests()
        params = [identity(each) for each in work.candidates]
        return {
            (candidate, split): f"fit/{digest(head, params[candidate], splits[split])}"
            for candidate in range(len(params))
            for split in range(len(splits))
        }

    def get(self, key: str) -> Scored | None:
        """Return the result of a fit that was made before."""
        record = self.records.get(key)
        if record is None or record.status != OK:
            return None
        self.reused += 1
        return {name: value for name, value in record.result.items() if name not in _BESIDE}

    def state_of(self, key: str) -> str:
        """Return the digest of the model that a segment of an earlier run left; empty for none."""
        record = self.records.get(key)
        return "" if record is None else str(record.result.get("state", ""))

    def add(self, done: Iterable[tuple[str, tuple[int, int], Scored, Mapping[str, Any]]]) -> None:
        """Keep results durably, in one segment.

        Parameters
        ----------
        done : iterable of (key, (candidate, split), result, parameters)
        """
        self.ledger.append(
            self._record(key, fit, result, params)
            for key, fit, result, params in done
            if not str(result["fit_error"]).startswith(LOST)
        )

    @staticmethod
    def _record(key: str, fit: tuple[int, int], result: Scored, params: Mapping[str, Any]) -> Record:
        return Record(
            unit=key,
            fingerprint=key.partition("/")[2],
            digest=digest({name: value for name, value in result.items() if not name.endswith("_time")}),
            status=OK,
            result={**result, "params": shown(params), "split": fit[1]},
            seconds=result["fit_time"] + result["score_time"],
        )


def checked(out: str | os.PathLike[str]) -> str:
    """Return the URL of a folder for results.

    Raises
    ------
    UsageError
        When it is none, or holds something else.
    """
    if not isinstance(out, (str, os.PathLike)):
        raise UsageError(f"out is a {type(out).__name__}; give the path of a folder for the results")
    url = files.normal(out)
    if url.endswith((".zarr", ".ledger")) or is_icechunk(url):
        raise UsageError(
            f"out={os.fspath(out)!r} is the name of a dataset; give a folder for the results of the search"
        )
    there = files.names(url)
    if there and "search.ledger" not in there and not all(name.startswith((".", "search")) for name in there):
        raise UsageError(f"out={url} holds other files ({', '.join(there[:3])}); choose a new folder for the results")
    return url


def shown(params: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as short text, for people."""
    return {name: repr(value)[:_SHOWN] for name, value in params.items()}


def identity(value: Any) -> str:
    """Return a digest that tells a value from others: by content, with the code of classes and functions."""
    if isinstance(value, type) or (callable(value) and hasattr(value, "__code__")):
        return f"code {_code(value)}"
    if isinstance(value, Mapping):
        return digest("map", sorted((str(key), identity(each)) for key, each in value.items()))
    if type(value) in (list, tuple) and not _plain(value):
        return digest(type(value).__name__, [identity(each) for each in value])
    if isinstance(value, StoredRows):
        return value.identity()
    if hasattr(value, "get_params"):
        kind: Any = type(value)
        return digest("estimator", _code(kind), identity(value.get_params(deep=False)))
    if all(hasattr(value, name) for name in ("dist", "args", "kwds")):  # of scipy; it holds a random state too
        return digest("distribution", type(value.dist).__name__, identity([value.args, value.kwds]))
    if type(value).__module__ == "sklearn.metrics._scorer":
        return digest("scorer", type(value).__name__, identity(vars(value)))
    return f"{type(value).__name__} {_hash(value)}"


def _plain(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(type(each) in (str, int, float, bool, bytes, type(None)) for each in values)


@lru_cache(maxsize=1024)
def _code(value: Callable[..., Any]) -> str:
    return code_digest(value).hex()


def _hash(value: Any) -> str:
    try:
        found: str = joblib.hash(value)
    except Exception:
        import cloudpickle

        found = hashlib.blake2b(cloudpickle.dumps(value), digest_size=16).hexdigest()
    return found
