"""Workflow and cluster files -> models, with every error on its line.

``read_workflow`` reads a file, validates it and checks what a file alone can tell: references, kinds,
cycles, the order in which features are made and what they may read. The first problem by line is
raised as one :class:`~daskml_scale.errors.SpecError`. Nothing is started, written or imported, and no
source is opened (``spec.find.check_sources`` does that).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from daskml_scale.errors import PlanError, SpecError

from .base import Spec
from .cluster import ClusterSpec, ExistingSpec
from .explain import Problem, explain
from .hosts import Definition, SshSpec
from .key_paths import Lines, dotted, given_at, line_of
from .kubernetes import KubernetesSpec
from .matrix import Copy, spread
from .recipe_checks import workflow_problems
from .references import reference_problems
from .settings import applied
from .workflow import IngestSpec, Workflow
from .yaml_text import read_text, read_yaml, show

M = TypeVar("M", bound=Spec)


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A model and where its parts stand in the file.

    Attributes
    ----------
    model : Spec
    lines : mapping of dotted key path to 1-based line
    file : str or None
        The file as the user named it.
    """

    model: M
    lines: Mapping[str, int]
    file: str | None = None
    data: Any = field(default=None, repr=False, compare=False)
    """What the model was made of."""

    @property
    def folder(self) -> Path | None:
        """Folder of the file, to which Python beside it belongs; ``None`` for what was made in Python."""
        return Path(self.file).parent if self.file else None

    def error(self, path: str | Sequence[str | int], message: str) -> SpecError:
        """Return an error at a key path: keys and list positions, or their dotted text."""
        return _error(Problem(path if isinstance(path, str) else dotted(path), message), self.lines, self.file)

    def place(self, error: SpecError | PlanError) -> SpecError | PlanError:
        """Return a late error (planning, running) with file and line.

        The path of a ``SpecError``, or the first word of a ``PlanError``, names the stage. A key path
        within it among the first words of the message, or one of its expressions, tells the rest.
        """
        if isinstance(error, SpecError):
            path, parts = error.path or "", error.message.split(": ")
        else:
            stage, *parts = str(error).split(": ")
            path = f"stages.{stage}"
        known = path in self.lines or (isinstance(error, SpecError) and error.line is None and bool(self.lines))
        if not known:
            return error
        for position, part in enumerate(parts[:-1][:3]):
            if f"{path}.{part}" in self.lines:
                return self.error(f"{path}.{part}", ": ".join(parts[:position] + parts[position + 1 :]))
        message = ": ".join(parts)
        said = next((key for key, text in self._expressions(path) if message.startswith(repr(text))), "")
        if not said and isinstance(error, PlanError):
            return error
        return self.error(f"{path}.{said}" if said else path, message)

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Name file and line of what only planning or running shows to be wrong."""
        try:
            yield
        except (PlanError, SpecError) as error:
            raise self.place(error) from error.__cause__

    def _expressions(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield (key, text) of the expressions of the stage at a path such as ``stages.flights``."""
        stages = self.model.stages if isinstance(self.model, Workflow) else {}
        stage = stages.get(path.removeprefix("stages."))
        if isinstance(stage, IngestSpec):
            yield from ((f"derive.{name}", text) for name, text in stage.derive.items())
        for key in ("known_at", "fit_where", "where"):
            if text := getattr(stage, key, None):
                yield key, text


def load(model: type[M], text: str, file: str | None = None, settings: Sequence[str] = ()) -> Loaded[M]:
    """Validate one YAML text, with what was set beside it, against a model.

    Raises
    ------
    SpecError
        The first problem by line, and how many more there are.
    """
    data, lines = read_yaml(text, file)
    if not isinstance(data, dict):
        raise SpecError(f"expected 'key: value' lines at the top, found {show(data)}", file=file, line=lines[""])
    applied(data, lines, settings)
    if model is Workflow and "classes" in data and "stages" not in data:
        raise SpecError("this is a cluster file; a workflow has stages:", file=file, line=lines["classes"])
    if model is ClusterSpec and "stages" in data and "classes" not in data:
        raise SpecError("this is a workflow file; a cluster has classes:", file=file, line=lines["stages"])
    try:
        return Loaded(model.model_validate(data), lines, file, data)
    except ValidationError as error:
        problems = explain(error, model, data)
    raise first_error(problems, lines, file)


def read_workflow(
    path_or_text: str | Path, *, name: str | None = None, settings: Sequence[str] = ()
) -> Loaded[Workflow]:
    """Read and check a workflow; see :func:`load_workflow`. The result knows its lines.

    ``settings`` are values beside the file, see ``spec.settings``.
    """
    return _spread(_sound(load(Workflow, *_text_and_file(path_or_text, name), settings)))


def check_workflow(workflow: Workflow) -> Loaded[Workflow]:
    """Check a workflow that was made in Python as :func:`read_workflow` does; it has no lines."""
    return _spread(_sound(Loaded(workflow, {})))


def _sound(loaded: Loaded[Workflow]) -> Loaded[Workflow]:
    problems = [*reference_problems(loaded.model), *workflow_problems(loaded.model)]
    if problems:
        raise first_error(problems, loaded.lines, loaded.file)
    return loaded


def _spread(loaded: Loaded[Workflow]) -> Loaded[Workflow]:
    """Return the workflow with a stage for every combination of a ``matrix:``, and the lines of each."""
    if not any(stage.matrix for stage in loaded.model.stages.values()):
        return loaded
    try:
        read = loaded.data or loaded.model.model_dump(mode="json", exclude_unset=True)
        data, copies = spread(read, loaded.model)
    except SpecError as error:
        raise loaded.error(error.path or "", error.message) from None
    lines = _lines_of(loaded.lines, copies)
    try:
        return _sound(Loaded(Workflow.model_validate(data), lines, loaded.file, data))
    except ValidationError as error:
        problems = explain(error, Workflow, data)
    raise first_error(problems, lines, loaded.file)


def _lines_of(known: Mapping[str, int], copies: Mapping[str, Copy]) -> Lines:
    """Return the lines of the stages that copies are of, for the copies; values of a matrix have those of its keys."""
    lines = Lines(known)
    lines.given.update(known.given if isinstance(known, Lines) else {})
    for name, made in copies.items():
        old, new = dotted(("stages", made.origin)), dotted(("stages", name))
        lines.update({new + at[len(old) :]: line for at, line in lines.items() if _below(at, old)})
        lines.given.update({new + at[len(old) :]: text for at, text in lines.given.items() if _below(at, old)})
        for path, key in made.values.items():
            if (line := line_of(known, dotted(("stages", made.origin, "matrix", key)))) is not None:
                lines[f"{new}.{path}"] = line
    return lines


def _below(path: str, parent: str) -> bool:
    return path == parent or path.startswith((f"{parent}.", f"{parent}["))


def load_workflow(path_or_text: str | Path, *, name: str | None = None) -> Workflow:
    """Read and check a workflow.

    Parameters
    ----------
    path_or_text : str or Path
        A file, or YAML text: a string with a line break in it.
    name : str, optional
        What errors call the file; by default its path.

    Raises
    ------
    SpecError
        Naming file, line, key path, the value found and the remedy.
    """
    return read_workflow(path_or_text, name=name).model


def load_cluster(path_or_text: str | Path, *, name: str | None = None) -> Definition:
    """Read and check a cluster definition; parameters and errors as in :func:`load_workflow`."""
    text, file = _text_and_file(path_or_text, name)
    data, _ = read_yaml(text, file)
    return load(cluster_model(data), text, file).model


def cluster_model(
    data: object,
) -> type[ClusterSpec] | type[SshSpec] | type[KubernetesSpec] | type[ExistingSpec]:
    """Return the model that a cluster definition is meant for, by its backend."""
    backend = data.get("backend") if isinstance(data, Mapping) else None
    if backend == "ssh":
        return SshSpec
    if backend == "kubernetes":
        return KubernetesSpec
    return ExistingSpec if backend == "existing" else ClusterSpec


def locate(error: SpecError, file: str | Path | None) -> SpecError:
    """Return a late error (planning, running) with its file, and its line where the file can still tell."""
    if file is None:
        return error
    try:
        lines: Mapping[str, int] = read_yaml(read_text(Path(file)), str(file)).lines
    except SpecError:
        lines = {}
    return error.at(file=str(file), line=line_of(lines, error.path or ""))


def first_error(problems: Iterable[Problem], lines: Mapping[str, int], file: str | None) -> SpecError:
    """Return the first problem by line as an error that says how many more there are."""
    ordered = sorted(problems, key=lambda problem: line_of(lines, problem.path) or 0)
    more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    return _error(Problem(ordered[0].path, ordered[0].message + more), lines, file)


def _error(problem: Problem, lines: Mapping[str, int], file: str | None) -> SpecError:
    if given := given_at(lines, problem.path):
        return SpecError(problem.message, file=given, path=problem.path)
    return SpecError(problem.message, file=file, line=line_of(lines, problem.path), path=problem.path or None)


def _text_and_file(path_or_text: str | Path, name: str | None) -> tuple[str, str | None]:
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        return path_or_text, name or "<text>"
    return read_text(Path(path_or_text), name), name or str(path_or_text)
