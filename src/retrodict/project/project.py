"""The one object a user holds; command line and notebook are skins over its methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self

from retrodict import decisions, learning, monitoring, serving
from retrodict.core.clock import Clock
from retrodict.core.definition import Definition
from retrodict.core.errors import check_known, check_text
from retrodict.core.identity import is_ulid
from retrodict.core.lazy import lazy_modules
from retrodict.monitoring.definitions import Monitor
from retrodict.project.api_keys import ApiKeys
from retrodict.project.arguments import Time, instant, only_one
from retrodict.project.challengers import Challengers
from retrodict.project.damage import names_damage
from retrodict.project.data import Data
from retrodict.project.decisions import Decision, Decisions
from retrodict.project.experiments import Experiments
from retrodict.project.features import Features
from retrodict.project.fits import Fits
from retrodict.project.ledger import Ledger
from retrodict.project.models import Models
from retrodict.project.new_project import write_template
from retrodict.project.outcomes import Outcomes
from retrodict.project.pipelines import Pipelines
from retrodict.project.plan import Plan, read_plan
from retrodict.project.policies import Policies
from retrodict.project.progress import Progress
from retrodict.project.rollouts import Rollouts
from retrodict.project.runs import Runs
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    from retrodict import rollout
    from retrodict.decisions.lineage import DecisionLineage, ObjectLineage
    from retrodict.decisions.lineage_graph import LineageGraph
    from retrodict.decisions.replay import DecisionReplay
    from retrodict.learning.replay import RunReplay
    from retrodict.ledger import AuditReport
    from retrodict.monitoring.report import MonitorReport
    from retrodict.registry import Revision
    from retrodict.rollout import rescore, window
    from retrodict.rollout.report import ChallengerReport
    from retrodict.workspace import Definitions
else:
    (rollout,) = lazy_modules("retrodict", "rollout")
    rescore, window = lazy_modules("retrodict.rollout", "rescore", "window")

__all__ = ["Project"]


class Project(Fits):
    """An opened project.

    Everything the product does is a method of it or of its namespaces. What comes back shows itself: ``print`` gives
    text, a notebook a table, ``to_dict()`` the whole as plain data.

    Parameters
    ----------
    folder : path, default "."
        The project's folder, or any folder below it.
    definitions : sequence of definitions, optional
        What the project is, made in a notebook: written to ``definitions.py`` of ``folder``, which becomes a project if
        it is none. By default the definitions module of the folder says it.
    clock : Clock, optional
        Where "now" comes from; the system's clock by default.
    actor : str, optional
        Who acts, as the ledger will say: by default the environment variable ``RETRODICT_ACTOR``, or the name of the
        operating-system user.
    progress : callable, optional
        Called with (what, done, total) at each step of long work, not at all by work of one step; by default a bar,
        where standard error is a terminal.

    Attributes
    ----------
    workspace : Workspace
        Settings, definitions and stores: what the rooms' own functions take.
    data : Data
        Versions of tables: ingest, read, compare, profile, put back.
    features : Features
        What the features are, that they are right, their values, and the online state that serves.
    runs : Runs
        Trainings: list, get, compare.
    models : Models
        Model versions: list, get, approve, reject.
    policies, challengers : Policies, Challengers
        What decides, since when; halt and release it; what would decide otherwise: replay.
    rollouts : Rollouts
        Bring in a new version step by step: start, status, pause, abort.
    experiments : Experiments
        Compare variants: plan, start, report, stop, decide.
    decisions, outcomes : Decisions, Outcomes
        Decisions that were made: get, table, ask a server; what actually happened: ingest, show.
    ledger : Ledger
        Who did what: verify, log, seal, proof.
    api_keys : ApiKeys
        Who may call a server: issue, rotate, revoke, list.
    pipelines : Pipelines
        All of this in order: run, status, history.

    Examples
    --------
    >>> p = Project("flights")  # doctest: +SKIP
    >>> p.data.ingest("flights", frame)  # doctest: +SKIP
    >>> run = p.train("late_arrival")  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path = ".",
        *,
        definitions: Sequence[Definition] | None = None,
        clock: Clock | None = None,
        actor: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        if definitions is not None:
            from retrodict.workspace.writer import write_definitions

            written = write_definitions(Path(folder), definitions)
        self.workspace = Workspace(folder, clock=clock, actor=actor)
        if definitions is not None:  # whatever another notebook writes meanwhile
            self.workspace.definitions = written
        self._report, self._deciding = progress, Lock()
        self.data, self.features = Data(self), Features(self)
        self.runs, self.models, self.policies = Runs(self), Models(self), Policies(self)
        self.rollouts, self.decisions, self.outcomes = Rollouts(self), Decisions(self), Outcomes(self)
        self.challengers = Challengers(self)
        self.ledger, self.pipelines, self.api_keys = Ledger(self), Pipelines(self), ApiKeys(self)
        self.experiments = Experiments(self)

    @classmethod
    def create(cls, folder: str | Path, *, force: bool = False, actor: str | None = None) -> Project:
        """Make a small project on real flights that works as it is, and open it.

        Parameters
        ----------
        folder : path
            Where it is made.
        force : bool
            Write into a folder that has files of these names: they are overwritten.
        actor : str, optional
            Who acts.
        """
        cls.write_template(Path(folder), force=force)
        return cls(folder, actor=actor)

    write_template = staticmethod(write_template)

    # what it is made of -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the project."""
        return self.workspace.name

    @property
    def folder(self) -> Path:
        """Folder of the project."""
        return self.workspace.root

    @property
    def definitions(self) -> Definitions:
        """What the definitions module says now."""
        return self.workspace.definitions

    # what it does -----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Show what is defined, what stands, and what to do next.

        Exit code 1 if a definition reads a column that its table, with rows, does not have.
        """
        return read_plan(self.workspace)

    def deploy(
        self, policy: str, *, model: str | None = None, reason: str = "deploy", force: str | None = None,
        trial: int = 0, max_changes: float = 0.1,
    ) -> Revision:  # fmt: skip
        """Put a policy in force with an approved version of its model.

        Refused while a view of the model has not passed `features verify` as it was when the model was trained.

        Parameters
        ----------
        policy : str
            Name of a defined policy.
        model : str, optional
            Version to decide with, as name@version.  [default: newest approved]
        reason : str
            Why, for the ledger.
        force : str, optional
            Serve views that have not passed or were never built, for this reason; recorded.
        trial : int
            Newest decisions that it makes again first; an error refuses it.
        max_changes : float
            Share of these that it may decide otherwise.
        """
        more: dict[str, Any] = {"trial": trial, "max_changes": max_changes}
        return rollout.deploy(self.workspace, policy, model=model, reason=reason, force=force, **more)

    def promote(self, policy: str, model: str, *, reason: str, force: str | None = None) -> Revision:
        """Let another approved version of the model decide.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        model : str
            Version to decide with, as name@version.
        reason : str
            Why, for the ledger.
        force : str, optional
            Serve views that have not passed or were never built, for this reason; recorded.
        """
        return rollout.promote(self.workspace, policy, model, reason=reason, force=force)

    def rollback(self, policy: str, *, reason: str, to: str | int | None = None) -> Revision:
        """Go back to what decided before the present revision; again, and it goes further back.

        What is left is marked: `deploy` takes that version again only by name.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        reason : str
            Why, for the ledger.
        to : str or int, optional
            Revision (7 or POLICY#7) or model version (name@version) that decided before.
        """
        return rollout.rollback(self.workspace, policy, reason=reason, to=to)

    def decide(
        self, policy: str, *, key: str | None = None, explain: bool = False, at: Time | None = None,
        request_id: str | None = None, **values: Any,
    ) -> Decision:  # fmt: skip
        """Decide one case in this process, by the path that HTTP takes; durable when it returns.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        key : str, optional
            Key of the decided thing in the label's table, for the outcome to join on.
        explain : bool
            Ask for reasons.
        at : Time, optional
            Moment of the decision, by which it counts, for a replay of the past.  [default: now]
        request_id : str, optional
            Gives the same decision again, made once, to every call that repeats it.
        **values
            Entity keys, and what is known of the case.

        Examples
        --------
        >>> project.decide("warn_early", origin="JFK", sched_dep="2013-09-01T18:00-04:00")  # doctest: +SKIP
        """
        options: dict[str, Any] = {"key": key, "explain": explain, "at": instant(at, "at"), "request_id": request_id}
        with self._deciding:  # close() waits for it: a decision is whole, or comes after the stores are opened again
            return Decision(self, *self._decider.answer(policy, values, **options))

    @cached_property
    def _decider(self) -> serving.Decider:
        return serving.Decider(self.workspace)

    def serve(
        self, *, host: str | None = None, port: int | None = None, grpc_port: int | None = None,
        workers: int | str | None = None, replay: bool = False, no_consume: bool = False,
        only: Literal["features", "models", "decisions"] | None = None,
        ready: Callable[[str, str | None], None] | None = None,
    ) -> None:  # fmt: skip
        """Answer decisions and features over HTTP until Ctrl-C; follows each change of deployment.

        Parameters
        ----------
        host : str, optional
            Address to listen on.  [default: serving.host of retrodict.toml]
        port : int, optional
            Port, 0 for any free one.  [default: serving.port]
        grpc_port : int, optional
            Port for gRPC too, 0 for any free one.  [default: serving.grpc_port]
        workers : int or str, optional
            Processes that answer, from one port: 4, 1-8 by load, or auto.  [default: serving.workers]
        replay : bool
            Accept a simulated time from callers, and start no controller of rollouts: never for real callers.
        no_consume : bool
            Start neither the feature consumer nor what follows shadows, rollouts and experiments.
        only : {"features", "models", "decisions"}, optional
            Serve a part alone; decisions ask serving.features_url and models_url.
        ready : callable, optional
            Called once with the URL, and the address for gRPC or None.
        """
        here, companion = ("--project", str(self.folder)), serving.Companion
        beside = [companion(("shadow", "run", *here), self.challengers.has_shadows)]
        if not replay:  # a controller goes by this machine's clock: every step of a replayed month has lasted for years
            beside.append(companion(("rollout", "run", *here), self.rollouts.any_under_way))
        options = serving.ServeOptions(host, port, replay, not no_consume, workers, grpc_port, tuple(beside), only)
        serving.serve(self.workspace, options, ready=ready)

    def monitor(
        self, monitor: str | None = None, *, now: Time | None = None, html: str | Path | None = None
    ) -> MonitorReport:
        """Measure performance and drift of decisions, judge the triggers.

        Everything as it was known at --now. Exit code 1 if a trigger fires.

        Parameters
        ----------
        monitor : str, optional
            Name of a defined monitor; may be left out where there is one.
        now : Time, optional
            As of when.  [default: now]
        html : path, optional
            Also write the report as a page of HTML to this file.
        """
        names = [definition.name for definition in self.definitions.of(Monitor)]
        definition = self.definitions.get(Monitor, monitor or only_one(names, "monitor"))
        now_ = instant(now, "now") or self.workspace.clock.now()
        with self.progress("monitor"):
            report = monitoring.monitor(self.workspace, definition, now=now_)
        if html is not None:
            from retrodict.monitoring.page import write_report

            write_report(Path(html), report, threshold=definition.psi_threshold)
        return report

    def compare(
        self,
        policy: str,
        challenger: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        now: Time | None = None,
    ) -> ChallengerReport:
        """Compare another model version with what decided, on the decisions made.

        It is the report of `replay window`, which can do more: other policies, groups, several processes, a page.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        challenger : str
            Another version of its model, as name@version.
        start : Time, optional
            Only decisions from this time on.
        end : Time, optional
            Only decisions before this time.
        now : Time, optional
            As of when outcomes are known.  [default: now]
        """
        now_ = instant(now, "now") or self.workspace.clock.now()
        first, last = instant(start, "start"), instant(end, "end")
        with self.progress(f"compare {challenger}"):
            other = rescore.make_challenger(self.workspace, policy, model=challenger)
            return window.replay_window(
                self.workspace, window.DecisionSpan(policy, first, last), other, now=now_
            ).report

    @names_damage
    def lineage(
        self,
        ref: str,
        *,
        format: Literal["tree", "mermaid", "openlineage"] = "tree",  # noqa: A002  # the option's name
    ) -> ObjectLineage | DecisionLineage | LineageGraph:
        """Show what a thing was made from, and what was made from it.

        Parameters
        ----------
        ref : str
            ``decision:ULID`` (or the bare ULID), ``model:name@version``, ``dataset:name@version``, …
        format : str
            ``tree``, ``mermaid`` (a flowchart), or ``openlineage`` (run events, one JSON object a line).
        """
        from retrodict.decisions.lineage import DecisionLineage
        from retrodict.decisions.lineage_graph import FORMATS, lineage_graph

        check_known(format, FORMATS, "a lineage must be shown in a known format", where="lineage", what="format")
        if check_text(ref, where="reference").startswith("decision:") or is_ulid(ref):
            decision = DecisionLineage(decisions.trace_decision(self.workspace, ref))
            return decision if format == "tree" else lineage_graph(self.workspace, decision, format)
        lineage = decisions.trace_object(self.workspace, ref)
        return lineage if format == "tree" else lineage_graph(self.workspace, lineage, format)

    def replay(self, ref: str) -> RunReplay | DecisionReplay:
        """Execute a training or a decision again and compare, bit for bit.

        Parameters
        ----------
        ref : str
            ``run:ULID`` or ``decision:ULID``.
        """
        kind = check_text(ref, where="reference").partition(":")[0]
        return self.replay_run(ref) if kind == "run" else self.replay_decision(ref)

    @names_damage
    def replay_run(self, ref: str) -> RunReplay:
        """Train a past run again and compare.

        From its own code, table versions, split and seed. Exit code 1 if the result is not exact.

        Parameters
        ----------
        ref : str
            ``run:ULID``.
        """
        with self.progress("replay") as progress:
            return learning.replay_run(self.workspace, ref, progress=progress)

    @names_damage
    def replay_decision(self, ref: str) -> DecisionReplay:
        """Make a past decision again and compare.

        From the log, the stored code and model, and the tables as of then. Exit code 1 if the result is not exact.

        Parameters
        ----------
        ref : str
            ``decision:ULID``.
        """
        with self.progress("replay"):
            return decisions.replay_decision(self.workspace, ref)

    def audit(self) -> AuditReport:
        """Verify that nothing was altered, removed or cut off: the same as ``ledger.verify``."""
        return self.ledger.verify()

    def close(self) -> None:
        """Close the stores that were opened; the next use opens them again."""
        with self._deciding:
            decider = self.__dict__.pop("_decider", None)
            if decider is not None:
                decider.close()
            self.workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Project({self.name!r}, folder={str(self.folder)!r}, actor={self.workspace.actor!r})"

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if not name.startswith("_")]
