"""``project.decisions``: decisions that were made, and asking for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from retrodict import decisions
from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, Verbatim, number, when
from retrodict.core.durations import MINUTE, SECOND, format_duration
from retrodict.core.errors import RetrodictError
from retrodict.core.lazy import lazy_modules
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace
from retrodict.project.user_rows import UserRows
from retrodict.workspace.servers import server_url

if TYPE_CHECKING:
    from retrodict.client import Answer
    from retrodict.decisions import score_drops
    from retrodict.decisions.lineage import DecisionLineage
    from retrodict.decisions.records import DecisionRecord
    from retrodict.decisions.replay import DecisionReplay
    from retrodict.decisions.score_drops import ScoreDrop
    from retrodict.features.offline import files
    from retrodict.monitoring import decision_export, decision_retention, decision_table
    from retrodict.monitoring.decision_retention import Retention
    from retrodict.monitoring.decision_table import Compaction
    from retrodict.project.project import Project
    from retrodict.serving import failures as failure_log
    from retrodict.serving.failures import FailuresReport
else:
    (files,) = lazy_modules("retrodict.features.offline", "files")
    decision_export, decision_retention, decision_table = lazy_modules(
        "retrodict.monitoring", "decision_export", "decision_retention", "decision_table"
    )
    (failure_log,) = lazy_modules("retrodict.serving", "failures")
    (score_drops,) = lazy_modules("retrodict.decisions", "score_drops")

__all__ = ["Decision", "DecisionView", "Decisions", "JoinedLog", "ScoreCaches", "ServerAnswer"]


class _Answer(Shown):
    """What callers and people see of an answer."""

    def blocks(self) -> Sequence[Block | None]:
        """Decision, score, what made it, and the reasons."""
        answer = self.to_dict()
        outputs = answer.get("outputs") or {"score": answer.get("score")}
        facts = {
            "decision": answer.get("decision"), **{name: number(value) for name, value in outputs.items()},
            "model": answer["model"] or None, "policy": answer["policy"], "fallback": answer.get("fallback"),
            "id": f"decision:{answer['decision_id']}",
        }  # fmt: skip
        doubts = [f"  {view} was not simply read: {_doubt(**doubt)}" for view, doubt in answer.get("views", {}).items()]
        return [Facts(facts), *(f"  because  {reason}" for reason in answer.get("reasons", [])), *doubts]


def _doubt(status: str, age_s: float | None) -> str:
    return status if age_s is None else f"{status}, newest event {format_duration(round(age_s) * SECOND)} before"


class Decision(_Answer):
    """One decision, durable in the log.

    Attributes
    ----------
    record : DecisionRecord
        Everything that is logged of it: features, score, versions, stages.
    replayed : bool
        Whether an earlier call with the same request id made it.
    in_log : bool
        Whether it is in the log; False for what a policy that samples has left out.

    Examples
    --------
    >>> d = project.decide("warn_early", origin="JFK", carrier="B6", explain=True)  # doctest: +SKIP
    >>> d.decision, d.score, d.reasons  # doctest: +SKIP
    ('warn', 0.71, ['JFK arrivals 34 min late over the last 2 h'])
    """

    __slots__ = ("_project", "in_log", "record", "replayed")

    def __init__(self, project: Project, record: DecisionRecord, replayed: bool = False, in_log: bool = True) -> None:
        self._project, self.record, self.replayed, self.in_log = project, record, replayed, in_log

    @property
    def ref(self) -> str:
        """``decision:ULID``."""
        return f"decision:{self.record.id}"

    @property
    def decision(self) -> str:
        """The decision."""
        return self.record.decision

    @property
    def score(self) -> float | None:
        """Calibrated score; None when a fallback decided without a model."""
        return self.record.score

    @property
    def reasons(self) -> Sequence[str]:
        """Reasons in words: of the rule that decided, and of the score where they were asked for."""
        return self.record.reasons

    @property
    def views(self) -> Mapping[str, Mapping[str, Any]]:
        """Views that were not simply read, each with ``status`` and ``age_s``; empty where nothing was in doubt."""
        return self.record.views

    @property
    def features(self) -> Mapping[str, Any]:
        """Every feature value that model and rules saw."""
        return self.record.features

    @names_damage
    def lineage(self) -> DecisionLineage:
        """Show everything behind the decision: rows, code, run, approval."""
        from retrodict.decisions.lineage import DecisionLineage

        return DecisionLineage(decisions.trace_decision(self._project.workspace, self.ref))

    @names_damage
    def replay(self) -> DecisionReplay:
        """Make the decision again and compare, bit for bit."""
        return self._project.replay_decision(self.ref)

    def to_dict(self) -> dict[str, Any]:
        """The answer, as a caller over HTTP gets it."""
        return self.record.answer() if self.in_log else {**self.record.answer(), "recorded": "no"}


class DecisionView(Decision):
    """A decision with everything that its record says: what was asked, what was read, who asked."""

    __slots__ = ()

    def blocks(self) -> Sequence[Block | None]:
        """The answer, then when and for whom, inputs and features."""
        record, inputs = self.record, {**self.record.entities, **self.record.context}
        session = ", ".join(f"{name} {value}" for name, value in record.session.items()) or None
        facts = {
            "time": when(record.time), "key": record.key, "caller": record.caller, "request id": record.request_id,
            "score before calibration": record.raw if record.score != record.raw else None, "rule": record.rule,
            "error": record.error, "session": session, "score of": record.cached, "masked": record.masked or None,
            "made at": when(record.made) if abs(record.made - record.time) > MINUTE else None,
            "took": f"{sum(record.stages.values()) / 1e3:.1f} ms",
        }  # fmt: skip
        features = Grid(["feature", "value>"], [(name, value) for name, value in record.features.items()])
        return [*super().blocks(), Verbatim(""), Facts(facts), Verbatim(""),
                Grid(["asked", "value>"], list(inputs.items())), Verbatim(""), features]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The answer, and ``record``: every field of the record, as it is in the log, and when it was ``made``."""
        times = {"time": format_time(self.record.time), "made": format_time(self.record.made)}
        return {**super().to_dict(), "record": {**structs.asdict(self.record), **times}}


@dataclass(frozen=True, repr=False)
class ServerAnswer(_Answer):
    """Answer of a running server: ``answer`` has its ``decision``, ``score`` and the rest."""

    answer: Answer

    def to_dict(self) -> dict[str, Any]:
        """The answer, as it came."""
        return self.answer.body


@dataclass(frozen=True, repr=False)
class JoinedLog(Shown):
    """Decisions of a policy with their outcomes.

    Attributes
    ----------
    policy : str
    table : pyarrow.Table
        One row per decision.
    output : Path, optional
        File that it was written to.
    """

    policy: str
    table: Any
    output: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Counts, for ``--json``."""
        statuses = Counter(self.table.column("record__status").to_pylist())
        return {"policy": self.policy, "decisions": self.table.num_rows, "outcomes": dict(sorted(statuses.items())),
                "output": None if self.output is None else str(self.output)}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """How many decisions there are, and of how many the outcome is known."""
        counts = self.to_dict()
        return [Facts({"policy": self.policy, "decisions": counts["decisions"], **counts["outcomes"],
                       "written to": counts["output"]})]  # fmt: skip


@dataclass(frozen=True, repr=False)
class ScoreCaches(Shown):
    """What the score caches of a running server are worth: ``caches`` has a dict by policy."""

    caches: Mapping[str, Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """What the server says."""
        return dict(self.caches)

    def blocks(self) -> Sequence[Block | None]:
        """Numbers of each, and what would be worth more."""
        lines: list[Block | None] = []
        for policy, facts in self.caches.items():
            words = {name.replace("_", " "): value for name, value in facts.items() if name != "advice"}
            words["redis results"] = [f"{n} {result}" for result, n in facts["redis_results"].items()]
            lines += [Facts({"policy": policy, **words}), facts["advice"]]
        return lines or ["No policy in force has a cache."]


class Decisions(Namespace):
    """Decisions of a project."""

    @names_damage
    def get(self, ref: str) -> Decision:
        """Return one logged decision.

        Parameters
        ----------
        ref : str
            ``decision:ULID``, as every answer names it.
        """
        return Decision(self._project, decisions.find_decision(self._workspace, ref).record)

    def show(self, ref: str) -> DecisionView:
        """Show one logged decision: the answer, what was asked, every feature, who asked and when.

        What is behind the values (rows, code, run, approval) is shown by ``lineage``.

        Parameters
        ----------
        ref : str
            ``decision:ULID``, as every answer names it.
        """
        return DecisionView(self._project, self.get(ref).record)

    @names_damage
    def table(self, policy: str, *, start: Time | None = None, end: Time | None = None) -> Any:
        """Return the logged decisions of a policy as an Arrow table, in order of time.

        Parameters
        ----------
        policy : str
            Whose decisions.
        start : Time, optional
            Only decisions from this time on.
        end : Time, optional
            Only decisions before this time.
        """
        first, last = instant(start, "start"), instant(end, "end")
        return decisions.decisions_table(self._workspace, policy, start=first, end=last)

    @names_damage
    def training_set(
        self,
        policy: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        as_of: Time | None = None,
        output: str | Path | None = None,
    ) -> JoinedLog:
        """Join recorded decisions with their outcomes, to train on.

        Each decision is one row. Features are as the model saw them. "record__label" is null until it counts;
        "record__weight" makes up for decisions that the policy left out of the log.

        Parameters
        ----------
        policy : str
            Whose decisions.
        start : Time, optional
            Only decisions from this time on.
        end : Time, optional
            Only decisions before this time.
        as_of : Time, optional
            Outcomes that were known by then.  [default: now]
        output : str or Path, optional
            A .parquet or .csv file to write.
        """
        path = None if output is None else files.check_output(Path(output))
        now = instant(as_of, "as_of") or self._workspace.clock.now()
        span = {"start": instant(start, "start"), "end": instant(end, "end")}
        table = decision_export.joined_log(self._workspace, policy, now=now, **span)
        if path is not None:
            files.write_rows(table, path)
        return JoinedLog(policy, table, path)

    @names_damage
    def lines(self, policy: str | None = None, *, start: Time | None = None, follow: bool = False) -> Iterator[str]:
        """Return the log as lines of JSON, one for each record, for a collector such as Vector, Fluent Bit or kcat.

        Parameters
        ----------
        policy : str, optional
            Whose decisions.  [default: all]
        start : Time, optional
            Only decisions from this time on.
        follow : bool
            Go on with what is recorded from then on, until it is stopped.
        """
        return decision_export.log_lines(self._workspace, policy, start=instant(start, "start"), follow=follow)

    def failures(self, policy: str | None = None, *, start: Time | None = None, limit: int = 100) -> FailuresReport:
        """Return the newest requests that got no decision, with error and masked input.

        Parameters
        ----------
        policy : str, optional
            Of which policy.  [default: all]
        start : Time, optional
            Only requests from this time on.
        limit : int
            How many at most.
        """
        return failure_log.read_failures(self._workspace, policy, start=instant(start, "start"), limit=limit)

    def compact(self, *, keep: str | None = None) -> Compaction:
        """Write sealed decisions of the log, each once, into the versioned table "decisions".

        It is read like any other table; each row names the place of its record in the log, which stays the proof. The
        same call once more writes only what was sealed since, also after one that was killed.

        Parameters
        ----------
        keep : str, optional
            Age from which rows leave the newest version, like "400d".  [default: never]
        """
        return decision_table.compact_decisions(self._workspace, keep=keep)

    def retain(self, *, older_than: str, reason: str, yes: bool = False) -> Retention:
        """Delete sealed segments of the log that are older than an age and in the table "decisions".

        Signed entries of the ledger name them first: an audit accepts exactly those as missing. Their decisions can no
        longer be shown, proved or replayed, which is said of each. Their rows stay in the table until "keep" of
        "compact", or a vacuum, takes them.

        Parameters
        ----------
        older_than : str
            Age of the newest decision of a segment, like "400d".
        reason : str
            Why, for the ledger.
        yes : bool
            Delete; without it, it is only said what would go.
        """
        return decision_retention.retain_decisions(self._workspace, older_than, reason=reason, dry_run=not yes)

    def drop_scores(self, policy: str | None = None, *, feature: str | None = None, reason: str) -> ScoreDrop:
        """Forget cached scores of a policy, or of all whose model reads a feature.

        That is in every process, and in Redis. A trigger that reads "psi" does so for the features that drifted when
        it fires.

        Parameters
        ----------
        policy : str, optional
            Of this policy alone.  [default: all]
        feature : str, optional
            Only where the model reads this feature.
        reason : str
            Why, for the ledger.
        """
        return score_drops.drop_scores(self._workspace, policy, feature, reason=reason)

    def score_caches(self, *, url: str | None = None) -> ScoreCaches:
        """Return what the score caches of a running server are worth, and what to set.

        Parameters
        ----------
        url : str, optional
            Address of the server.  [default: serving.host and serving.port of retrodict.toml]
        """
        from retrodict.client import Client

        with Client(url or server_url(self._workspace)) as client:
            return ScoreCaches(client.get("/v1/status")["score_caches"])

    def decide_many(
        self,
        policy: str,
        rows: Any,
        *,
        key: str | None = None,
        request_id: str | None = None,
        explain: bool = False,
        at: Time | None = None,
    ) -> list[Decision | RetrodictError]:
        """Decide many cases in this process, at one moment; durable when it returns.

        Features are read, cases scored and records synced together. A case that is wrong has its error in the list.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        rows : list of dict, or frame (pandas, Polars, Arrow)
            Entity keys, and what is known of each case, by name.
        key : str, optional
            Column with the key of the decided thing in the label's table.
        request_id : str, optional
            Column with an id for each case, which gives the same decision to every call that repeats it.
        explain : bool
            Ask for reasons.
        at : Time, optional
            Moment of the decisions, by which they count, for a replay of the past.  [default: now]
        """
        if not isinstance(rows, list | tuple):
            rows = UserRows(rows, "rows").read_table(every_column=True).to_pylist()
        columns = {name: [row.get(name) for row in rows] for name in (key, request_id) if name is not None}
        cases = [{name: value for name, value in row.items() if name not in columns} for row in rows]
        options: dict[str, Any] = {"explain": explain, "at": instant(at, "at")}
        options |= {"keys": columns.get(key or ""), "request_ids": columns.get(request_id or "")}
        with self._project._deciding:  # noqa: SLF001  # the lock of the face that this is part of
            answers = self._project._decider.decide_many(policy, cases, **options)  # noqa: SLF001
        return [one if isinstance(one, RetrodictError) else Decision(self._project, *one) for one in answers]

    def ask(
        self,
        policy: str,
        entities: Mapping[str, Any],
        context: Mapping[str, Any],
        *,
        key: str | None = None,
        explain: bool = False,
        at: Time | None = None,
        request_id: str | None = None,
        url: str | None = None,
    ) -> ServerAnswer:
        """Ask a running server for one decision.

        On the command line a value is read as JSON where it is a number, true, false, null or a text in quotes, and as
        text otherwise.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        entities : mapping
            Key of an entity; may be repeated.
        context : mapping
            Value the caller knows; may be repeated.
        key : str, optional
            Key of the decided thing in the label's table, for the outcome to join on.
        explain : bool
            Ask for reasons.
        at : Time, optional
            Simulated time, for a server started with --replay.
        request_id : str, optional
            Gives the same answer, decided once, to every call that repeats it.
        url : str, optional
            Address of the server.  [default: serving.host and serving.port of retrodict.toml]

        Notes
        -----
        :meth:`Project.decide` decides in this process.
        """
        from retrodict.client import Client  # the HTTP client takes longer to load than everything else here

        with Client(url or server_url(self._workspace)) as client:
            answer = client.decide(policy, entities, context, key=key, explain=explain, request_id=request_id,
                                   at=instant(at, "at"))  # fmt: skip
        return ServerAnswer(answer)
