"""Runs recorded by hand: a block of somebody's own work, with its parameters, metrics, files and tables.

What is logged is kept in memory for at most a fifth of a second and written in groups: a kill may take that last
moment, never the run.
"""

from __future__ import annotations

import math
import mimetypes
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from retrodict.core.errors import InputError, RefusedError, RetrodictError, check_known
from retrodict.core.identity import Ref
from retrodict.learning.runs.journal import Event, begin_run, settle
from retrodict.learning.runs.record import SVG, Run, check_length, check_line, check_run, check_tags
from retrodict.learning.runs.search import known_direction
from retrodict.learning.runs.writer import writer_of
from retrodict.workspace import Workspace

__all__ = ["OpenRun", "open_run"]

_LONGEST = 250
_DEEPEST = 20
_INT64 = 2**63


class OpenRun:
    """A run that goes on: log to it, then let the block end it.

    Promises: threads may share it; what was logged 0.2 s ago survives a kill, and the run itself from the beginning on;
    objects of the caller are read at once and never changed. Of two values for one metric and step the later counts; a
    parameter has one value.

    Attributes
    ----------
    id, ref : str
        ULID, and ``run:ULID``.

    Examples
    --------
    >>> with project.runs.start("by hand", model="late_arrival") as run:  # doctest: +SKIP
    ...     run.log_params({"depth": 3})
    ...     run.log_metric("auc", 0.7, step=3)
    """

    def __init__(self, workspace: Workspace, run: Run) -> None:
        self._workspace, self._run = workspace, run
        self._better: dict[str, str] = {}
        self._events: list[Event] = []
        self._lock = threading.Lock()
        run.params = self._read_params(run.params)
        self._params = dict(run.params)
        self._steps: dict[tuple[str, str], int] = {}
        self._began = time.perf_counter()
        self._ended = False

    @property
    def id(self) -> str:
        """ULID."""
        return self._run.id

    @property
    def ref(self) -> str:
        """``run:ULID``."""
        return self._run.ref

    # what is logged ---------------------------------------------------------------------------------------------------

    def log_param(self, name: str, value: Any) -> None:
        """Log one parameter; see :meth:`log_params`."""
        self.log_params({name: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters: what the work was done with.

        Parameters
        ----------
        params : mapping of str to value
            Texts, numbers, truth values, None, and lists and mappings of these. A fraction that is not finite is kept
            as text.

        Raises
        ------
        InputError
            If a value is of another kind, or a parameter has another value already.
        """
        plain = {
            self._line(name, "the name of a parameter"): self._plain(name, value) for name, value in params.items()
        }
        with self._lock:
            for name, value in plain.items():
                if name in self._params and self._params[name] != value:
                    raise InputError("a parameter must have one value", where=self.ref,
                                     got=f"{name} = {value!r} after {self._params[name]!r}",
                                     remedy="Log what changes on the way as a metric")  # fmt: skip
            self._add(*(["param", name, value] for name, value in plain.items() if name not in self._params))
            self._params |= plain

    def log_metric(
        self, name: str, value: float | None, *, step: int | None = None, split: str = "test",
        better: Literal["higher", "lower"] | None = None,
    ) -> None:  # fmt: skip
        """Log one value of a metric.

        Parameters
        ----------
        name : str
            One line of at most 250 printable characters.
        value : float or None
            NaN, infinities and None are kept as "not evaluable": they are never the best of anything.
        step : int, optional
            Position in the history; one after the last by default, 0 at first. A second value for a step replaces the
            first.
        split : str, default "test"
            Which rows it is of; a run is judged by those of ``test``.
        better : {"higher", "lower"}, optional
            Needed where the metric is not one that :func:`retrodict.evaluation.better` knows.

        Raises
        ------
        InputError
            If its name, or an earlier run, says that it is better the other way.
        """
        if better is not None and self._better.get(name) != better:
            directions = ("higher", "lower")
            check_known(better, directions, "a metric must be better one way", where=self.ref, what="direction")
            settle(self._workspace)  # what a run said that has just ended counts, too
            direction = self._better.get(name) or known_direction(self._workspace, name)
            if direction not in (None, better):
                raise InputError("a metric must be better the way that is known of it", where=f"{self.ref}, {name}",
                                 got=f"better={better!r} where it is {direction!r}",
                                 remedy="Correct it, or give the metric another name")  # fmt: skip
        self.log_metrics({name: value}, step=step, split=split)
        if better is not None:
            with self._lock:
                self._better[name] = better
                self._add(["better", name, better])

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int | None = None, split: str = "test") -> None:
        """Log values of several metrics of one step; see :meth:`log_metric`."""
        self._line(split, "the rows of a metric")
        if step is not None and (type(step) is not int or not -_INT64 <= step < _INT64):
            raise InputError("a step must be a whole number of 64 bits", where=self.ref, got=step, remedy="Count steps")
        values = [(self._line(name, "the name of a metric"), *self._number(name, value))
                  for name, value in metrics.items()]  # fmt: skip
        with self._lock:
            events: list[Event] = []
            for name, value, reason in values:
                at = self._steps.get((split, name), -1) + 1 if step is None else step
                self._steps[split, name] = max(at, self._steps.get((split, name), at))
                events.append(["metric", split, name, at, value, reason])
            self._add(*events)

    def log_artifact(self, source: bytes | str | Path, name: str | None = None, *, media: str | None = None) -> str:
        """Keep a file, and return its SHA-256.

        Parameters
        ----------
        source : bytes or path
        name : str, optional
            Needed for bytes; the file's name by default. A second file of a name replaces the first.
        media : str, optional
            Media type; by the name's ending by default.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        else:
            value: object = source
            path = Path(value) if isinstance(value, str | os.PathLike) else None
            if path is None or not path.is_file():
                raise InputError("an artifact must be bytes or a file that exists", where=self.ref,
                                 got=type(value).__name__ if path is None else str(value),
                                 remedy="Log the files of a folder one by one, and values as JSON bytes")  # fmt: skip
            data, name = path.read_bytes(), name or path.name
        name = self._line(name, "the name of an artifact")
        kind = media or mimetypes.guess_type(name)[0] or "application/octet-stream"
        digest = self._workspace.objects.put(data)
        with self._lock:
            self._add(["artifact", name, digest, self._line(kind, "a media type", limit=120)])
        return digest

    def log_figure(self, figure: Any, name: str) -> str:
        """Keep a figure as SVG, for ``run.plot(name)``.

        Parameters
        ----------
        figure : matplotlib figure, str or bytes
            A figure, or the text of an SVG.
        name : str
        """
        if hasattr(figure, "savefig"):
            import io

            stream = io.BytesIO()
            figure.savefig(stream, format="svg")
            data = stream.getvalue()
        else:
            data = figure if isinstance(figure, bytes) else str(figure).encode()
        if b"<svg" not in data[:4_000]:
            raise InputError("a figure must be one of matplotlib or the text of an SVG", where=self.ref,
                             got=type(figure).__name__, remedy="Log other pictures as artifacts")  # fmt: skip
        return self.log_artifact(data, name if name.endswith(".svg") else f"{name}.svg", media=SVG)

    def log_dataset(self, data: Any, name: str = "frame") -> None:
        """Say which rows the work read: they are then part of what runs differ in.

        Parameters
        ----------
        data : str, frame or mapping
            Name of a table of the project, as ``flights`` (its newest version) or ``flights@3``: the lineage of the run
            names it. Or a frame of Arrow, Polars or pandas: its columns, number of rows and SHA-256 are kept, not the
            rows. Or these three as another tool describes them: ``columns``, ``rows``, ``sha256``.
        name : str, default "frame"
            What to call a frame.
        """
        if isinstance(data, str):
            event: Event = ["table", *self._version(data)]
        else:
            event = ["frame", self._line(name, "the name of a frame"), self._frame(data)]
        with self._lock:
            self._add(event)

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag; a second value replaces the first."""
        check_tags({name: value}, "", where=self.ref)
        with self._lock:
            self._add(["tag", name, value])

    def set_name(self, text: str) -> None:
        """Call the run something else."""
        check_line(text, "the name of a run", limit=200, where=self.ref)
        with self._lock:
            self._add(["name", text])

    def set_note(self, text: str) -> None:
        """Write the note of the run in the place of the one it has."""
        check_length(text, "the note of a run", limit=20_000, where=self.ref)
        with self._lock:
            self._add(["note", text])

    def start(self, name: str = "", **options: Any) -> OpenRun:
        """Start a run that is part of this one; options as for ``project.runs.start``."""
        return open_run(self._workspace, name, **{"model": self._run.model, **options}, parent=self.ref)

    # its end ----------------------------------------------------------------------------------------------------------

    def end(self, status: Literal["finished", "failed"] = "finished", error: str = "") -> None:
        """End the run, where no block does; durable when this returns.

        Parameters
        ----------
        status : {"finished", "failed"}
        error : str
            Kind of the error of a failed one.

        Raises
        ------
        RefusedError
            If it has ended.
        """
        check_known(status, ("finished", "failed"), "a run must end in one way", where=self.ref, what="status")
        writer = writer_of(self._workspace)
        with writer.turn:  # what was taken before is written before
            events = self.take_events()
            with self._lock:
                self._add(["end", status, self._workspace.clock.now(), time.perf_counter() - self._began, error])
                self._ended = True
            try:
                writer.write([(self.id, events), (self.id, self.take_events())])
            except BaseException:
                self._ended = False
                self.return_events(events)
                raise
        writer.forget(self)

    def flush(self) -> None:
        """Write what was logged; durable when this returns."""
        writer_of(self._workspace).flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if kind is None:
            self.end()
            return
        try:
            self.end("failed", kind.__name__)
        except RetrodictError as failure:  # the error that ended the run is the one to be seen
            assert error is not None
            error.add_note(f"{self.ref} is still open: {failure} It is closed as failed once this process has ended.")

    # below ------------------------------------------------------------------------------------------------------------

    def _add(self, *events: Event) -> None:
        """Keep events for the next writing; to be called with the lock held."""
        if self._ended:
            raise RefusedError("a run must be open to be logged to", where=self.ref, got="a run that has ended",
                               remedy="Start another one; tags and notes: project.runs.tag")  # fmt: skip
        self._events += events

    def take_events(self) -> list[Event]:
        """Hand over what is to be written, for the writer."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def return_events(self, events: list[Event]) -> None:
        """Take back what could not be written, for the next time."""
        with self._lock:
            self._events = events + self._events

    def _line(self, text: object, what: str, *, limit: int = _LONGEST) -> str:
        return check_line(text, what, limit=limit, where=self.ref)

    def _number(self, name: str, value: object) -> tuple[float | None, str]:
        if value is None:
            return None, ""
        try:
            number = float(value)  # type: ignore[arg-type]  # numbers of NumPy and tensors of one value among them
        except (TypeError, ValueError, OverflowError):
            raise InputError("a value of a metric must be a number of 64 bits", where=f"{self.ref}, metric {name}",
                             got=type(value).__name__, remedy="Log texts as tags or parameters") from None  # fmt: skip
        return (number, "") if math.isfinite(number) else (None, str(number))

    def _read_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {self._line(name, "the name of a parameter"): self._plain(name, value) for name, value in params.items()}

    def _plain(self, name: str, value: Any, depth: int = 0) -> Any:
        """A copy of a parameter as JSON has it."""
        if depth > _DEEPEST:
            raise InputError(f"a parameter must be nested {_DEEPEST} deep at most",
                             where=f"{self.ref}, parameter {name}", got="a deeper one, or one that holds itself",
                             remedy="Flatten it")  # fmt: skip
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(key): self._plain(name, part, depth + 1) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(name, part, depth + 1) for part in value]
        if hasattr(value, "tolist"):  # NumPy, without importing it here
            return self._plain(name, value.tolist(), depth + 1)
        raise InputError("a parameter must be plain: text, number, truth value, list or mapping",
                         where=f"{self.ref}, parameter {name}", got=type(value).__name__,
                         remedy="Log its text: str(value)")  # fmt: skip

    def _version(self, text: str) -> tuple[str, int]:
        from retrodict.features.catalogue.tables import newest_versions

        ref = Ref.parse(text, kind="dataset")
        newest = newest_versions(self._workspace.tables, [ref.name], where=self.ref)[ref.name]
        if ref.version is None:
            return ref.name, newest
        numbers = [str(version) for version in range(newest + 1)]
        rule = "a table must have the version that is named"
        return ref.name, int(check_known(ref.version, numbers, rule, where=f"{self.ref}, {text}", what="version"))

    def _frame(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping) and {"rows", "columns", "sha256"} <= data.keys():
            return {name: self._plain("data set", data[name]) for name in ("rows", "columns", "sha256")}
        import pyarrow as pa

        from retrodict.stores.tables.content import table_digest

        if not hasattr(data, "__arrow_c_stream__"):
            raise InputError("a data set must be the name of a table, or a frame of Arrow, Polars or pandas",
                             where=self.ref, got=type(data).__name__, remedy="Make a frame of it")  # fmt: skip
        table = pa.table(data)
        columns = {field.name: str(field.type) for field in table.schema}
        return {"rows": table.num_rows, "columns": columns, "sha256": table_digest(table)}


def open_run(
    workspace: Workspace,
    name: str = "",
    *,
    model: str = "",
    parent: OpenRun | Run | str | None = None,
    tags: Mapping[str, str] | None = None,
    note: str = "",
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> OpenRun:
    """Start a run by hand; durable when this returns.

    Parameters
    ----------
    workspace : Workspace
    name : str
        Free text of one line.
    model : str
        Name of the model it belongs to, if any.
    parent : run or reference, optional
        The run that this one is part of.
    tags : mapping of str to str, optional
    note : str
    params : mapping, optional
        As for :meth:`OpenRun.log_params`.
    seed : int
        Of the random numbers, if there is one.
    """
    above = parent if parent is None or isinstance(parent, str) else parent.ref
    check_line(model, "the name of a model", limit=63, where="run", empty=True)
    writer = writer_of(workspace)
    code, environment = writer.code(), writer.environment()
    run = Run(
        workspace.new_id(), model, "running", workspace.actor, workspace.clock.now(), seed, code, environment,
        {"versions": {}}, dict(params or {}), kind="hand", name=name, note=note, tags=dict(tags or {}),
        parent=None if above is None else Ref.parse(above, kind="run").name,
    )  # fmt: skip
    check_run(run)
    opened = OpenRun(workspace, run)
    begin_run(workspace, run)
    writer.follow(opened)
    return opened
