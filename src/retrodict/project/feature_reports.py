"""What ``project.features`` shows of definitions and proofs: summaries, details, changes, verdicts, parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, count, plain, short_hash, when
from retrodict.core.errors import InputError
from retrodict.core.lazy import lazy_modules
from retrodict.features.definitions import FeatureService, FeatureView
from retrodict.features.derived import Derived
from retrodict.features.plan import column_name

if TYPE_CHECKING:
    from retrodict.decisions.parity import ParityReport
    from retrodict.features import catalogue
    from retrodict.features.catalogue.changes import Change
    from retrodict.features.online import HotFeature
    from retrodict.features.online.read import heat
    from retrodict.features.verify import Mismatch, Report, verdicts
    from retrodict.features.verify.verdicts import ViewVerdict
    from retrodict.models import readers
    from retrodict.workspace import Workspace
else:
    (catalogue,) = lazy_modules("retrodict.features", "catalogue")
    (readers,) = lazy_modules("retrodict.models", "readers")
    (heat,) = lazy_modules("retrodict.features.online.read", "heat")
    (verdicts,) = lazy_modules("retrodict.features.verify", "verdicts")

__all__ = [
    "DerivedDetails",
    "FeatureChanges",
    "FeatureParity",
    "FeatureSummary",
    "ServiceDetails",
    "Verification",
    "ViewDetails",
    "slow_blocks",
    "summarise",
]

_LISTED_MISMATCHES, _EXPLAINED_MISMATCHES = 100, 5


# definitions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """A view, derived function or service as it is defined.

    ``reads`` are the keys of a view or the inputs of a derived function, ``features`` the names of its columns, and
    ``models`` those that list it. A service reads what a request must bring.
    """

    name: str
    kind: str
    version: str
    entity: str | None
    reads: tuple[str, ...]
    source: str | None
    features: tuple[str, ...]
    owner: str | None
    tags: tuple[str, ...]
    description: str | None
    models: list[str]


def summarise(workspace: Workspace, feature: FeatureView | Derived | FeatureService) -> FeatureSummary:
    """Summary of a view, derived function or service of the definitions."""
    if isinstance(feature, FeatureService):
        features, columns = catalogue.service_features(feature)
        return FeatureSummary(
            feature.name, "service", feature.version, None, (*features.request_keys, *features.request_columns), None,
            tuple(columns), feature.owner or None, tuple(feature.tags), feature.description or None, [],
        )  # fmt: skip
    models = readers.models_reading(workspace, feature.name)
    if isinstance(feature, Derived):
        names, inputs = [column_name(feature.name, name) for name in feature.outputs], tuple(feature.inputs)
        return FeatureSummary(
            feature.name, "derived", feature.version, None, inputs, None, tuple(names), None, (), None, models
        )
    return FeatureSummary(
        name=feature.name,
        kind="view",
        version=feature.version,
        entity=feature.entity.name if feature.entity else None,
        reads=tuple(feature.request_keys),
        source=feature.source.name,
        features=tuple(column_name(feature.name, name) for name in feature.feature_names),
        owner=feature.owner or None,
        tags=tuple(feature.tags),
        description=feature.description or None,
        models=models,
    )


class ViewDetails(Shown):
    """A view or one of its features: definition, columns behind it, verdict.

    Attributes
    ----------
    view : FeatureView
    summary : FeatureSummary
    verdict : ViewVerdict or None
        Newest verdict on the view as it is.
    slow : list of HotFeature
    """

    __slots__ = ("_columns", "_features", "slow", "summary", "verdict", "view")

    def __init__(self, workspace: Workspace, view: FeatureView, feature: str | None) -> None:
        self.view, self.summary = view, summarise(workspace, view)
        self._columns = catalogue.lineage(view, feature)
        self._features = [facts for facts in catalogue.describe(view) if feature in (None, facts.name)]
        self.verdict: ViewVerdict | None = verdicts.last_verdict(workspace, view)
        self.slow = [hot for hot in heat.slow_features(workspace, [view]) if feature in (None, hot.feature)]

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        view, source, verdict = self.view, self.view.source, self.verdict
        verified = None
        if verdict is not None:
            verified = {
                "passed": verdict.passed, "time": format_time(verdict.time), "by": verdict.actor, **verdict.facts,
            }  # fmt: skip
        features = [{"name": f.name, "column": f"{view.name}__{f.name}", **f.fields} for f in self._features]
        return {
            **plain(self.summary), "features": features, "keys": list(view.key_columns), "table": source.table.name,
            "event_time": source.event_time, "known_at": source.known_at, "delay": source.delay,
            "columns": [{"column": f"{source.table.name}.{u.column}", "roles": list(u.roles)} for u in self._columns],
            "verified": verified, "slow": [hot.to_dict() for hot in self.slow],
        }  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """The view, its features, the columns it reads."""
        view, table = self.view, self.view.source.table.name
        about = {
            "view": view.name, "version": short_hash(view.version), "owner": view.owner or None,
            "tags": view.tags or None, "about": view.description or None,
            "entity": view.entity.name if view.entity else "none: one value for everybody",
            "asked by": list(view.request_keys) or None, "source": f"{view.source.name}, rows of {table}",
            "known": _known_from(view), "read by models": self.summary.models, "verified": _verdict_text(self.verdict),
        }  # fmt: skip
        return [
            Facts(about),
            Grid(("feature", "is"), [(facts.name, str(facts)) for facts in self._features]),
            Grid(("reads column", "as"), [(f"{table}.{use.column}", use.roles) for use in self._columns]),
            *slow_blocks(self.slow),
        ]


class ServiceDetails(Shown):
    """A service: what it serves, and what a request to it must bring.

    Attributes
    ----------
    service : FeatureService
    summary : FeatureSummary
    verified : dict of str to bool or None
        By view: newest verdict on it as it is; None: never verified.
    """

    __slots__ = ("service", "summary", "verified")

    def __init__(self, workspace: Workspace, service: FeatureService) -> None:
        self.service, self.summary = service, summarise(workspace, service)
        views = [feature for feature in service.definitions if isinstance(feature, FeatureView)]
        latest = {view.name: verdicts.last_verdict(workspace, view) for view in views}
        self.verified = {name: None if verdict is None else verdict.passed for name, verdict in latest.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**plain(self.summary), "verified": self.verified}

    def blocks(self) -> Sequence[Block | None]:
        """The service, its views, its features."""
        summary = self.summary
        about = {
            "service": summary.name, "version": short_hash(summary.version), "owner": summary.owner,
            "tags": summary.tags or None, "about": summary.description, "asked by": list(summary.reads),
        }  # fmt: skip
        return [
            Facts(about),
            Grid(("view", "verified"), list(self.verified.items())),
            Grid(("feature",), [(name,) for name in summary.features]),
        ]


def _known_from(view: FeatureView) -> str:
    source = view.source
    if source.timeless:
        return "always: its facts have no time"
    if source.known_at is not None:
        return f"from {source.known_at} on"
    return f"{source.delay} after {source.event_time}" if source.delay else f"from {source.event_time} on"


def _verdict_text(verdict: ViewVerdict | None) -> str:
    if verdict is None:
        return "no, never as it is now"
    evidence = f"{count(verdict.facts['probes'])} requests, {when(verdict.time)}, by {verdict.actor}"
    return (
        f"yes: {evidence}" if verdict.passed else f"NO: {count(verdict.facts['mismatches'])} values differ; {evidence}"
    )


def slow_blocks(slow: Sequence[HotFeature]) -> list[str]:
    """Warnings, a line each."""
    return [f"\nSLOW: {hot}." for hot in slow]


class DerivedDetails(Shown):
    """A derived function: its inputs, followed to the columns behind them.

    Attributes
    ----------
    function : Derived
    summary : FeatureSummary
    inputs : list of dict
        ``input``, ``from`` (the view, or ``request``) and ``columns``.
    """

    __slots__ = ("function", "inputs", "summary")

    def __init__(self, workspace: Workspace, function: Derived) -> None:
        self.function, self.summary = function, summarise(workspace, function)
        defined = {feature.name: feature for feature in readers.defined_features(workspace)}
        self.inputs: list[dict[str, Any]] = []
        for name in function.inputs:
            view, joined, feature = name.partition("__")
            origin = defined.get(view) if joined else None
            columns = [] if origin is None else list(getattr(origin, "inputs", ()))
            if isinstance(origin, FeatureView):
                columns = [f"{origin.source.table.name}.{use.column}" for use in catalogue.lineage(origin, feature)]
            self.inputs.append({"input": name, "from": "request" if origin is None else view, "columns": columns})

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**plain(self.summary), "inputs": self.inputs}

    def blocks(self) -> Sequence[Block | None]:
        """The function and its inputs."""
        about = {"derived": self.function.name, "version": short_hash(self.function.version),
                 "outputs": list(self.function.outputs), "read by models": self.summary.models}  # fmt: skip
        rows = [(row["input"], row["from"], row["columns"]) for row in self.inputs]
        return [Facts(about), Grid(("input", "from", "columns"), rows)]


@dataclass(frozen=True, repr=False)
class FeatureChanges(Shown):
    """How the defined features differ from what is deployed.

    Attributes
    ----------
    changes : list of Change
    problems : list of str
        Columns that a view reads and its table lacks.
    slow : list of HotFeature
    """

    changes: list[Change]
    problems: list[str]
    slow: list[HotFeature]

    @property
    def refused(self) -> list[str]:
        """Views that a deciding model reads and that were changed without a new name."""
        return [change.name for change in self.changes if change.refused]

    @property
    def ok(self) -> bool:
        """Whether nothing is refused and no table lacks a column."""
        return not self.refused and not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**super().to_dict(), "refused": self.refused}

    def blocks(self) -> Sequence[Block | None]:
        """Every change, then fields that differ, what is refused, problems."""
        if not self.changes:
            return ["No feature is defined yet.", *self._warnings()]
        rows = [
            (c.name, c.kind, c.status, short_hash(c.version), [short_hash(version) for version in c.deployed],
             c.readers, f"yes, from {count(c.rows)} rows of {c.table}" if c.rebuild else "no")
            for c in self.changes
        ]  # fmt: skip
        columns = ("name", "kind", "status", "defined?", "deployed?", "models that read another", "fill online state")
        same = all(change.status == "same" for change in self.changes)
        return [
            Grid(columns, rows),
            *(
                Grid(("field", "deployed", "defined"), [(d.field, d.before, d.after) for d in change.differences],
                     title=f"{change.name} differs")
                for change in self.changes if change.differences
            ),
            "Everything that is deployed is as it is defined." if same else None,
            *(
                f"\nREFUSED: {change.name} was changed while {', '.join(change.readers)} reads it. "
                "Give the new view a name of its own, or go back to the deployed definition."
                for change in self.changes if change.refused
            ),
            *self._warnings(),
        ]  # fmt: skip

    def _warnings(self) -> list[str]:
        return [*(f"\nPROBLEM: {problem}" for problem in self.problems), *slow_blocks(self.slow)]


# proofs ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """Proof that training, serving, the stream and a naive oracle see the same values, or where not.

    Attributes
    ----------
    reports : dict of str to Report
        By model or service.
    views : dict of str to dict
        By model or service, by view: whether it may serve.
    decisions : ParityReport or None
        Of the logged decisions of a policy.
    show_keys : bool
        Whether the requests that differ are shown with their keys.
    """

    reports: Mapping[str, Report]
    views: Mapping[str, dict[str, bool]]
    decisions: ParityReport | None
    show_keys: bool

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing differs."""
        equal = all(report.verdict == "equal" for report in self.reports.values())
        return bool(self.reports) and equal and not (self.decisions and self.decisions.mismatches)

    def to_dict(self) -> dict[str, Any]:
        """Plain form; of each model the first hundred mismatches."""
        models = {
            name: {
                "verdict": self._verdict(name), "requests": report.probes, "compared": report.checked,
                "skipped": report.skipped, "left_out": report.left_out, "by_engine": report.compared,
                "boundaries": report.boundaries, "differing": len(report.mismatches),
                "mismatches": [self._mismatch(mismatch) for mismatch in report.mismatches[:_LISTED_MISMATCHES]],
                "views": self.views[name],
            }
            for name, report in self.reports.items()
        }  # fmt: skip
        return {"models": models, "decisions": None if self.decisions is None else self.decisions.to_dict()}

    def _verdict(self, name: str) -> str:
        """That of a report; where the state that serves was not reached, it does not read as if it had been."""
        report = self.reports[name]
        unreached = report.verdict == "equal" and self.views[name] and not report.compared.get("online")
        return "equal, online state not compared" if unreached else report.verdict

    def _mismatch(self, mismatch: Mismatch) -> dict[str, Any]:
        events = [
            {"event_time": _time(happened), "known_at": _time(known_at), "sequence": sequence, "row": row}
            for happened, known_at, sequence, row in mismatch.events
        ]
        request = {"request": mismatch.request} if self.show_keys else {}
        return {"feature": mismatch.feature, "at": format_time(mismatch.at), "key": mismatch.key,
                "values": mismatch.values, **request, "events": events}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Verdicts by model, what was not compared, which views may serve, the first few mismatches."""
        engines = ("oracle", "stream", "online")
        columns = ("model", "verdict", "requests>", "with oracle>", "with stream>", "with online state>", "differ>")
        rows = [
            (name, self._verdict(name), r.probes, *(r.compared.get(engine, 0) for engine in engines), len(r.mismatches))
            for name, r in self.reports.items()
        ]
        views = {view: passed for by_view in self.views.values() for view, passed in by_view.items()}
        return [
            Grid(columns, rows) if rows else "No model and no feature service is defined: there is nothing to verify.",
            *self._not_compared(),
            Grid(("view", "may serve"), list(views.items())) if views else None,
            *(text for report in self.reports.values() for text in self._mismatch_texts(report.mismatches)),
            self._decision_facts(),
        ]

    def _not_compared(self) -> list[str]:
        skipped = [f"{count(r.skipped)} requests of {name}" for name, r in self.reports.items() if r.skipped]
        unfilled = [
            name for name, r in self.reports.items() if r.checked and not r.skipped and "online" not in r.compared
        ]
        texts = []
        if skipped:
            reason = "Not compared with online state, which ends before them or cannot look back so far"
            texts.append(f"\n{reason}: {', '.join(skipped)}.")
        if unfilled:
            names = ", ".join(unfilled)
            texts.append(f"\nOnline state was not compared ({names}): fill it with retrodict features build.")
        return texts

    def _mismatch_texts(self, mismatches: Sequence[Mismatch]) -> list[str]:
        """Each with the newest events that its right value is made of."""
        first = mismatches[:_EXPLAINED_MISMATCHES]
        texts = [f"\n{mismatch.describe(show_keys=self.show_keys)}" for mismatch in first]
        if len(mismatches) > len(first):
            rest = count(len(mismatches) - len(first))
            texts.append(f"\n{rest} more; --json has up to {_LISTED_MISMATCHES}.")
        return texts

    def _decision_facts(self) -> Facts | None:
        log = self.decisions
        if log is None:
            return None
        numbers = {"decisions": log.decisions, "values": log.values, "mismatches": log.mismatches}
        return Facts(numbers, title="logged decisions")


def _time(instant: int) -> str | None:
    """Time in words; None for a fact without one."""
    try:
        return format_time(instant)
    except InputError:
        return None


@dataclass(frozen=True, repr=False)
class FeatureParity(Shown):
    """Feature values of logged decisions, recomputed from the tables.

    Attributes
    ----------
    policy : str
    report : ParityReport
    """

    policy: str
    report: ParityReport

    @property
    def verdict(self) -> str:
        """``equal``, ``different`` or ``not evaluable``."""
        return "different" if self.report.mismatches else "equal" if self.report.values else "not evaluable"

    @property
    def ok(self) -> bool:
        """Whether values were compared and none differs."""
        return self.verdict == "equal"

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {"policy": self.policy, "verdict": self.verdict, **self.report.to_dict()}

    def blocks(self) -> Sequence[Block | None]:
        """Numbers, and where values differ by which feature and in which decisions."""
        report = self.report
        about = {"policy": self.policy, "verdict": self.verdict, "decisions": report.decisions, "values": report.values,
                 "differ": report.mismatches, "not compared": report.not_compared or None,
                 "not compared, beyond the horizon of online state": report.beyond_horizon or None}  # fmt: skip
        streamed = [
            f"Decisions that used events of {table!r} that are only in its stream: {count(number)}. Values that differ "
            f"were not compared. Bring the same rows into the table: retrodict ingest {table} FILE"
            for table, number in report.streamed.items()
        ]
        if not report.mismatches:
            return [Facts(about), *streamed]
        rows = [(e["decision"], e["feature"], str(e["logged"]), str(e["recomputed"])) for e in report.examples]
        return [Facts(about), *streamed, Grid(("feature", "differ>"), list(report.by_feature.items())),
                Grid(("decision", "feature", "logged", "recomputed"), rows)]  # fmt: skip
