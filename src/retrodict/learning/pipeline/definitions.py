"""What a pipeline is: steps as data, and what each needs of the others.

A step is a noun of the project (``step.train("late_arrival")``) or a function of one's own (``@step``). Nobody writes
the order down: an argument that is named like a step takes its output, one that is named like a table its rows, and
nouns need what they read. One class per noun was rejected: eight more names, one of them taken (``Monitor``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, overload

from retrodict.core.definition import Definition, check_name
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, InternalError, check_known, near
from retrodict.core.identity import canonical_json, digest
from retrodict.core.names import NameUse
from retrodict.learning.pipeline.partitions import FORMATS
from retrodict.models.warmstart import WarmStart

__all__ = ["PARTITION", "Pipeline", "PipelineStep", "parse_memory", "step"]

PARTITION = "partition"
"""The argument that is the name of the partition."""

_LONGEST = 70  # of the name of a partition: "pipeline.step[partition]" is a name of 200 characters at most
_MEMORY = re.compile(r"([0-9]+)\s*(MB|GB)")


@dataclass(frozen=True)
class PipelineStep(Definition):
    """One step of a pipeline; made by :func:`step` and its methods.

    Parameters
    ----------
    name : str
    noun : str
        What it does of the project's: ``"train"``, ``"deploy"``, …; empty for a function of one's own.
    function : callable, optional
        That function.
    inputs : tuple of str
        Arguments that must be provided: outputs of other steps, rows of tables, the partition.
    params : tuple of (str, value)
        The others, plain values.
    after : tuple of str
        Steps that must have succeeded before, beside those whose outputs it takes.
    reads : str or tuple of str
        Files that it reads, as paths, folders or patterns (``"in/*.csv"``, ``"in/**/*.csv"``) from the project's
        folder, in which ``{partition}`` stands for the partition: by other content it is executed again.
    retries : int, default 0
        How often it is tried again after an error.
    pause : duration, default "1s"
        Longest wait before the first of these; twice as long before each following one, up to five minutes, and drawn
        at random between none and that (exponential back-off with full jitter).
    timeout : duration, optional
        After which its process and all of that one's are ended.
    memory : str, optional
        ``"500MB"``, ``"2GB"``: most memory of these processes.
    cpus : int, optional
        Threads that its numeric libraries use; its process then also stands back behind others (niceness).

    Examples
    --------
    >>> step.train("late_arrival").name
    'train_late_arrival'
    """

    kind: ClassVar[str] = "step"

    noun: str = ""
    function: Callable[..., Any] | None = None
    inputs: tuple[str, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()
    after: tuple[str, ...] = ()
    reads: str | tuple[str, ...] = ()
    retries: int = 0
    pause: str = "1s"
    timeout: str | None = None
    memory: str | None = None
    cpus: int | None = None

    def __post_init__(self) -> None:
        """Check names and limits."""
        super().__post_init__()
        where = f"step {self.name}"
        reads: tuple[Any, ...] = (self.reads,) if isinstance(self.reads, str) else tuple(self.reads)
        object.__setattr__(self, "reads", reads)
        if strange := [name for name in reads if not isinstance(name, str) or not name or "://" in name]:
            raise DefinitionError("reads must be paths or patterns of files on this machine", where=where, got=strange,
                                  remedy="Write reads='in/*.csv', or several as a tuple")  # fmt: skip
        for length in (self.pause, *([self.timeout] if self.timeout is not None else ())):
            parse_duration(length, where=where)
        if self.memory is not None:
            parse_memory(self.memory, where=where)
        for what, number, least in (("retries", self.retries, 0), ("cpus", self.cpus, 1)):
            if number is not None and (type(number) is not int or not least <= number <= 1000):
                raise DefinitionError(f"{what} must be a whole number from {least} to 1000", where=where, got=number,
                                      remedy="Write a number such as 3")  # fmt: skip
        for name, value in self.params:
            try:
                canonical_json(value)
            except InternalError as error:
                raise DefinitionError(
                    "a parameter of a step must be plain: text, number, list or dict",
                    where=f"{where}, parameter {name}", got=type(value).__name__,
                    remedy="Compute it inside the function, or in a step before",
                ) from error  # fmt: skip

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        assert self.function is not None, f"{self.name} is no function"
        return self.function(*args, **kwargs)

    def __identity__(self) -> dict[str, Any]:
        """Everything but the function, which stands as the hash of its source."""
        names = [entry.name for entry in fields(self) if entry.name not in ("function", "params")]
        source = None if self.function is None else digest(inspect.getsource(self.function).encode())
        body = {name: getattr(self, name) for name in names}
        return {"kind": "Step", **body, "params": dict(self.params), "function": source}

    def using(self, name: str | None = None, **params: Any) -> PipelineStep:
        """Return the step with other parameters, and under another name if one is given.

        Examples
        --------
        >>> dict(step.verify().using(samples=500).params)["samples"]
        500
        """
        for parameter in params:
            rule = "a parameter must be one that the step has"
            where = f"step {self.name}"
            check_known(parameter, dict(self.params), rule, where=where, what="parameter", error=DefinitionError)
        values = {**dict(self.params), **params}
        return replace(self, name=name or self.name, params=tuple(values.items()))

    @property
    def files(self) -> tuple[str, ...]:
        """Paths and patterns of the files whose content its result depends on."""
        source = dict(self.params).get("source") if self.noun == "ingest" else None
        return (*self.reads, *([source] if source else []))

    @property
    def makes(self) -> frozenset[str]:
        """What it leaves behind, as far as its definition says."""
        values = dict(self.params)
        effect = {"ingest": f"table:{values.get('table')}", "build": "state:", "verify": "proof:",
                  "train": f"model:{values.get('model')}",
                  "deploy": f"policy:{values.get('policy')}"}.get(self.noun)  # fmt: skip
        return frozenset({f"step:{self.name}", *([effect] if effect else ())})


class _Steps:
    """Makes steps: of a function as the decorator ``@step``, of nouns of the project by its methods."""

    __qualname__: str

    @overload
    def __call__(self, function: Callable[..., Any]) -> PipelineStep: ...
    @overload
    def __call__(self, *, name: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], PipelineStep]: ...
    def __call__(
        self, function: Callable[..., Any] | None = None, *, name: str | None = None, **options: Any
    ) -> PipelineStep | Callable[[Callable[..., Any]], PipelineStep]:
        """Make a step of a function.

        An argument that is named like a step takes its output, one that is named like a table of the project its
        newest rows, ``partition`` the name of the partition; any other must have a default, which is its parameter.
        It returns a table of Arrow, pandas or Polars, a JSON value, bytes, or the path of a file.

        Parameters
        ----------
        function : callable
            At the top of a module of the project.
        name : str, optional
            The function's name by default.
        **options
            ``after``, ``reads``, ``retries``, ``pause``, ``timeout``, ``memory``, ``cpus`` of :class:`PipelineStep`.

        Raises
        ------
        DefinitionError
            If it is no such function, or an option is none.
        """
        _check_options(options)
        if function is None:
            return lambda decorated: self(decorated, name=name, **options)  # type: ignore[call-overload]
        label = name or str(getattr(function, "__name__", ""))
        where = f"step {label!r}"
        if not inspect.isfunction(function) or function.__qualname__ != function.__name__ or label == "<lambda>":
            raise DefinitionError("a step must be a function at the top of a module", where=where,
                                  got=getattr(function, "__qualname__", type(function).__name__),
                                  remedy="Write it with def, outside of classes and functions")  # fmt: skip
        inputs, params = [], {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DefinitionError("an argument of a step must have a name of its own", where=where,
                                      got=str(parameter), remedy="Write out what it needs")  # fmt: skip
            if parameter.default is parameter.empty:
                inputs.append(parameter.name)
            else:
                params[parameter.name] = parameter.default
        return PipelineStep(label, "", function, tuple(inputs), tuple(params.items()), **options)

    def ingest(self, table: Any, source: Any, *, name: str | None = None, **options: Any) -> PipelineStep:
        """Check rows and publish them as a version of a table: those of files, or those that another step made.

        Parameters
        ----------
        table : Table or str
        source : str, path or PipelineStep
            A path or pattern from the project's folder, in which ``{partition}`` stands for the partition; or a step.
        name : str, optional
        **options
            As for a function; ``replace``, ``update`` and ``fill_missing`` as for ``project.data.ingest``.
        """
        _check_options(options, "replace", "update", "fill_missing")
        label = check_name(_name_of(table), what="table")
        params = {"table": label, "replace": options.pop("replace", False), "update": options.pop("update", False),
                  "fill_missing": options.pop("fill_missing", False)}  # fmt: skip
        if isinstance(source, PipelineStep):
            return self._noun("ingest", name or f"ingest_{label}", params, options, inputs=(source.name,))
        return self._noun("ingest", name or f"ingest_{label}", {**params, "source": str(source)}, options)

    def build(self, *, name: str = "build", **options: Any) -> PipelineStep:
        """Bring online state up to the tables, after what ingests into them."""
        return self._noun("build", name, {}, options)

    def verify(self, *, samples: int = 50, seed: int = 0, name: str = "verify", **options: Any) -> PipelineStep:
        """Prove that training, serving, the stream and a naive oracle agree; a gate for what comes after."""
        return self._noun("verify", name, {"samples": samples, "seed": seed}, options)

    def train(
        self, model: Any, *, start_from: str | WarmStart | None = None, name: str | None = None, **options: Any
    ) -> PipelineStep:
        """Train a model and register a version; refused where a gate of it does not pass.

        With ``start_from`` it goes on from a version, ``"champion"`` from the one in force then. Another version in
        force is no reason to train again: what has the same rows and definition is skipped.
        """
        label, params = _name_of(model), {}
        if start_from is not None:
            start = WarmStart(start_from) if isinstance(start_from, str) else start_from
            params["start_from"] = tuple(asdict(start).items())
        return self._noun("train", name or f"train_{label}", {"model": label, **params}, options)

    def deploy(self, policy: Any, *, reason: str = "pipeline", name: str | None = None, **options: Any) -> PipelineStep:
        """Put a policy in force with the newest version; refused until somebody else has judged that one."""
        label = _name_of(policy)
        return self._noun("deploy", name or f"deploy_{label}", {"policy": label, "reason": reason}, options)

    def score(self, model: Any, rows: Any, *, name: str | None = None, **options: Any) -> PipelineStep:
        """Score the rows of a table or of another step; its output is the frame."""
        label = _name_of(model)
        return self._noun("score", name or f"score_{label}", {"model": label}, options, inputs=(_name_of(rows),))

    def monitor(self, monitor: Any, *, name: str | None = None, **options: Any) -> PipelineStep:
        """Measure performance and drift as of now; refused where a trigger fires."""
        label = _name_of(monitor)
        return self._noun("monitor", name or f"monitor_{label}", {"monitor": label}, options)

    def replay(self, model: Any, *, name: str | None = None, **options: Any) -> PipelineStep:
        """Train the newest version again and compare, bit for bit."""
        label = _name_of(model)
        return self._noun("replay", name or f"replay_{label}", {"model": label}, options)

    def audit(self, *, name: str = "audit", **options: Any) -> PipelineStep:
        """Verify that nothing was altered, removed or cut off; after every other step."""
        return self._noun("audit", name, {}, options)

    def _noun(
        self, noun: str, name: str, params: Mapping[str, Any], options: Mapping[str, Any], inputs: tuple[str, ...] = ()
    ) -> PipelineStep:
        _check_options(options)
        return PipelineStep(name, noun, None, inputs, tuple(params.items()), **options)


step = _Steps()
step.__qualname__ = "step"  # by which the definitions of a notebook import it


@dataclass(frozen=True)
class _Argument(NameUse):
    """An argument that no step provides: it must be named like a table."""

    steps: tuple[str, ...] = ()

    def fault(self, tables: Mapping[str, Any]) -> DefinitionError | None:
        if self.name in tables:
            return None
        # A noun's step is named by what it does and to what: train_default, of which somebody writes train.
        kin = [name for name in self.steps if self.name in name.split("_")]
        remedy = near(self.name, kin or [*self.steps, *tables], what="step or table")
        return DefinitionError(self.rule, where=self.where, got=self.name, remedy=remedy)


@dataclass(frozen=True)
class Pipeline(Definition):
    """Steps in the order in which they need each other, by hand or on a schedule.

    Parameters
    ----------
    name : str
    steps : sequence of PipelineStep
        In any order.
    schedule : str, optional
        When it runs, as cron has it: ``"0 3 * * *"``.
    timezone : str, default "UTC"
        Of the schedule.
    partitions : str or sequence of str, optional
        ``"hour"``, ``"day"``, ``"month"``, ``"year"``, or their names.
    owner : str

    Raises
    ------
    DefinitionError
        If two steps have one name, they need each other in a circle, or a name is unknown.

    Examples
    --------
    >>> Pipeline("nightly", [step.ingest("flights", "data/*.csv"), step.train("late_arrival")]).steps[1].name
    'train_late_arrival'
    """

    kind: ClassVar[str] = "pipeline"

    steps: tuple[PipelineStep, ...]
    schedule: str | None = None
    timezone: str = "UTC"
    partitions: str | tuple[str, ...] | None = None
    owner: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check steps, schedule and partitions."""
        super().__post_init__()
        where, steps = f"pipeline {self.name}", tuple[Any, ...](self.steps)  # a definitions module is not type-checked
        strange = [part for part in steps if not isinstance(part, PipelineStep)]
        names = [part.name for part in steps if isinstance(part, PipelineStep)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if strange or twice or not steps:
            raise DefinitionError("the steps of a pipeline must be made by step, each with a name of its own",
                                  where=where, got=twice or [getattr(part, "__name__", part) for part in strange],
                                  remedy="Decorate functions with @step; name=… renames")  # fmt: skip
        object.__setattr__(self, "steps", steps)
        if self.schedule is not None:
            self.next_time(datetime(2000, 1, 1).astimezone())
        self._check_partitions(where)
        for part in steps:
            for name in part.after:
                rule = "a step must come after steps of its pipeline"
                check_known(name, names, rule, where=f"{where}, {part.name}", what="step", error=DefinitionError)
        self.graph()

    def _check_partitions(self, where: str) -> None:
        if self.partitions is not None and not isinstance(self.partitions, str):
            object.__setattr__(self, "partitions", tuple(self.partitions))
            for name in tuple[Any, ...](self.partitions):
                if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.isprintable() or ".." in name:
                    raise DefinitionError("the name of a partition must be a text of one line", where=where, got=name,
                                          remedy=f"Write 1 to {_LONGEST} characters without '..'")  # fmt: skip
            if not self.partitions or len(set(self.partitions)) < len(self.partitions):
                raise DefinitionError("partitions must be names, each once", where=where, got=list(self.partitions),
                                      remedy='Write partitions=["north", "south"]')  # fmt: skip
        elif self.partitions is not None:
            rule = "partitions must be hours, days, months or years, or a list of names"
            check_known(self.partitions, FORMATS, rule, where=where, what="kind", error=DefinitionError)
        using = [part.name for part in self.steps if _reads_partition(part)]
        if bool(using) != (self.partitions is not None):
            raise DefinitionError("a pipeline must have partitions exactly where a step takes one", where=where,
                                  got=using or self.partitions,
                                  remedy='Write Pipeline(…, partitions="month"), and take the argument partition, '
                                         'or write {partition} into the source of an ingest')  # fmt: skip

    def uses(self) -> Iterator[NameUse]:
        """Tables that its steps fill and read."""
        names = tuple(part.name for part in self.steps)
        for part in self.steps:
            where = f"pipeline {self.name}, step {part.name}"
            if part.noun == "ingest":
                yield NameUse("table", dict(part.params)["table"], "an ingest must fill a table of the project", where)
            for name in part.inputs:
                if name not in names and name != PARTITION:
                    rule = "an argument without a default must be named like a step of the pipeline or a table"
                    yield _Argument("argument", name, rule, where, steps=names)

    @property
    def partitioned(self) -> frozenset[str]:
        """Names of the steps that are executed for each partition: those that take it, and those fed by these."""
        names = {part.name for part in self.steps if _reads_partition(part)}
        while more := {part.name for part in self.steps if part.name not in names and names & set(part.inputs)}:
            names |= more
        return frozenset(names)

    def step(self, name: str) -> PipelineStep:
        """Return a step by name."""
        return next(part for part in self.steps if part.name == name)

    def sources(self, part: PipelineStep) -> dict[str, str]:
        """Inputs of a step, and parameters that a step is named like: ``step:NAME`` or ``table:NAME`` by argument."""
        names = {other.name for other in self.steps if other.name != part.name}
        parameters = [name for name, _ in part.params if name in names] if part.function is not None else []
        arguments = [name for name in (*part.inputs, *parameters) if name != PARTITION]
        return {name: f"step:{name}" if name in names else f"table:{name}" for name in arguments}

    def graph(self, reads: Callable[[PipelineStep], frozenset[str]] = lambda _: frozenset()) -> dict[str, list[str]]:
        """Steps that each step needs, by name, in an order in which they can be executed.

        Parameters
        ----------
        reads : callable
            What nouns read beside their inputs, as :attr:`PipelineStep.makes` has it.

        Raises
        ------
        DefinitionError
            If they need each other in a circle.
        """
        needs: dict[str, set[str]] = {}
        for part in self.steps:
            read = {*self.sources(part).values(), *reads(part)}
            needs[part.name] = {other.name for other in self.steps if other.name != part.name
                                and (other.makes & read or other.name in part.after
                                     or (part.noun == "audit" and other.noun != "audit"))}  # fmt: skip
        places = {part.name: place for place, part in enumerate(self.steps)}
        try:
            order = list(
                TopologicalSorter({name: sorted(needs[name], key=places.__getitem__) for name in places}).static_order()
            )
        except CycleError as error:
            raise DefinitionError("steps must not need each other in a circle", where=f"pipeline {self.name}",
                                  got=" → ".join(reversed(error.args[1])),
                                  remedy="Take one of these arguments away") from error  # fmt: skip
        return {name: sorted(needs[name], key=places.__getitem__) for name in order}

    def next_time(self, after: datetime) -> datetime:
        """When the schedule comes next, in UTC; the pipeline must have one."""
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        from cronsim import CronSim, CronSimError

        try:
            zone = ZoneInfo(self.timezone)
            # A sixth field, of seconds, is one that cron and Kubernetes do not know.
            text = str(self.schedule) if len(str(self.schedule).split()) == 5 else ""
            return next(CronSim(text, after.astimezone(zone))).astimezone(ZoneInfo("UTC"))
        except (CronSimError, ZoneInfoNotFoundError, ValueError, StopIteration) as error:
            raise DefinitionError("a schedule must be five fields of cron that some time meets, in a known time zone",
                                  where=f"pipeline {self.name}", got=f"{self.schedule} {self.timezone}",
                                  remedy='Write it like "0 3 * * *", timezone="Europe/Berlin"') from error  # fmt: skip

    def to_dagster(self, project: Any, *, start: str = "2020-01-01") -> Any:
        """Return it as ``Definitions`` of Dagster (extra ``dagster``): assets, checks, a job and the schedule.

        Parameters
        ----------
        project : Project
        start : str, default "2020-01-01"
            Day of the first partition, where it has partitions in time.
        """
        from retrodict.learning.pipeline.dagster import to_dagster

        return to_dagster(self, project, project.pipelines.show(self.name).graph, start=start)


def parse_memory(text: str, *, where: str) -> int:
    """Bytes of a text like ``"2GB"``."""
    match = _MEMORY.fullmatch(str(text))
    if match is None or not int(match[1]):
        raise DefinitionError("a limit of memory must be a whole number of MB or GB", where=where, got=text,
                              remedy="Write it like '2GB'")  # fmt: skip
    return int(match[1]) * {"MB": 10**6, "GB": 10**9}[match[2]]


def _check_options(options: Mapping[str, Any], *more: str) -> None:
    allowed = (*more, "after", "reads", "retries", "pause", "timeout", "memory", "cpus")
    for name in options:
        rule = "an option of a step must be one that there is"
        check_known(name, allowed, rule, where="step", what="option", error=DefinitionError)


def _name_of(noun: Any) -> str:
    name = noun if isinstance(noun, str) else getattr(noun, "name", None)
    return check_name(name, what="noun of a step")


def _reads_partition(part: PipelineStep) -> bool:
    return PARTITION in part.inputs or any("{partition}" in name for name in part.files)
