"""``project.experiments``: plan, start, stop, report on and decide experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.display import Block, Facts, Listing, Shown, when
from retrodict.core.files import write_text
from retrodict.core.lazy import lazy_modules
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict.registry import Revision
    from retrodict.rollout import experiments
    from retrodict.rollout.experiments import ExperimentPlan, ExperimentReport, ExperimentRun, RuleEstimate
else:
    (experiments,) = lazy_modules("retrodict.rollout", "experiments")

__all__ = ["ExperimentDecision", "Experiments"]


class ExperimentDecision(Shown):
    """What was decided after an experiment, and on which report."""

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self.name, self.facts = name, facts

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {"experiment": self.name, **self.facts}

    def blocks(self) -> Sequence[Block | None]:
        """The choice and its evidence."""
        return [Facts({"experiment": self.name, "decided for": self.facts["variant"], "reason": self.facts["reason"],
                       "verdict": self.facts["verdict"], "shown": self.facts["shown"],
                       "report": self.facts["report"]})]  # fmt: skip


class Experiments(Namespace):
    """Experiments of a project.

    Examples
    --------
    >>> project.experiments.report("letter_tone")  # doctest: +SKIP
    """

    def plan(
        self,
        experiment: str,
        *,
        history: str = "28d",
        baseline: float | None = None,
        deviation: float | None = None,
        units_per_day: float | None = None,
    ) -> ExperimentPlan:
        """Work out how many units an experiment needs, how long that takes, what less shows.

        The plan goes on record; without one of the definition as it is, an experiment does not start.

        Parameters
        ----------
        experiment : str
            Name of the experiment.
        history : str
            How far back decisions of the policy are read.
        baseline : float, optional
            Value of the primary metric now, where history does not tell.
        deviation : float, optional
            Standard deviation of a unit's value, with a baseline that is no rate.
        units_per_day : float, optional
            New units a day, where history does not tell.
        """
        return experiments.plan_experiment(self._workspace, experiment, history=history, baseline=baseline,
                                           deviation=deviation, units_per_day=units_per_day)  # fmt: skip

    def start(
        self,
        experiment: str,
        *,
        share: float | None = None,
        weights: Mapping[str, float] | None = None,
        reason: str,
    ) -> Revision:
        """Begin to give units a variant; raise the share or change the weights of what runs.

        Parameters
        ----------
        experiment : str
            Name of the experiment.
        share : float, optional
            Part of the units that take part, above 0.  [default: 1, or as it is]
        weights : mapping of str to float, optional
            Weights from now on, of all variants.  [default: as defined, or as they are]
        reason : str
            For the ledger.
        """
        return experiments.start(self._workspace, experiment, share=share, weights=weights, reason=reason)

    def stop(self, experiment: str, *, reason: str) -> Revision:
        """Give no more variants; outcomes go on to mature, and reports with them.

        Parameters
        ----------
        experiment : str
            Name of the experiment.
        reason : str
            For the ledger.
        """
        return experiments.stop(self._workspace, experiment, reason=reason)

    @names_damage
    def report(self, experiment: str, *, now: Time | None = None, html: str | Path | None = None) -> ExperimentReport:
        """Say what an experiment shows so far, and what to do; every look is on record.

        Parameters
        ----------
        experiment : str
            Name of the experiment.
        now : Time, optional
            As of when.  [default: now]
        html : path, optional
            Write the report as a page into this file.
        """
        moment = instant(now, "now")
        moment = self._workspace.clock.now() if moment is None else moment
        report = experiments.report_on(self._workspace, experiment, now=moment)
        if html is not None:
            write_text(Path(html), experiments.report_page(report))
        return report

    @names_damage
    def value(self, experiment: str, give: Mapping[str, str], *, now: Time | None = None) -> RuleEstimate:
        """Estimate what a rule for who gets which variant brings on the primary metric.

        The units that got by chance what the rule gives stand for all, each by one over the weight of its variant.

        Parameters
        ----------
        experiment : str
            Name of the experiment.
        give : mapping of str to str
            Variant to a condition over segments, in order; the last for ``otherwise``.
        now : Time, optional
            As of when.  [default: now]
        """
        moment = instant(now, "now")
        return experiments.evaluate_rule(self._workspace, experiment, give,
                                         now=self._workspace.clock.now() if moment is None else moment)  # fmt: skip

    def decide(self, experiment: str, variant: str, *, reason: str, anyway: bool = False) -> ExperimentDecision:
        """Put on record which variant it shall be, with a report of now as evidence.

        Refused for a treatment that the report does not show to be better.

        Parameters
        ----------
        experiment : str
            Name of an experiment that was stopped.
        variant : str
            What was chosen.
        reason : str
            For the ledger.
        anyway : bool
            Decide for one that is not shown to be better; the record says so.
        """
        facts = experiments.decide(self._workspace, experiment, variant, reason=reason, anyway=anyway)
        return ExperimentDecision(experiment, facts)

    @names_damage
    def list(self) -> Listing[ExperimentRun]:
        """List experiments that run or ran, oldest first."""

        def row(run: ExperimentRun) -> tuple[object, ...]:
            until = "runs" if run.until is None else when(run.until)
            return run.name, run.policy, when(run.since), until, run.state["share"], ", ".join(run.state["variants"])

        columns = ("experiment", "policy", "since", "until", "share>", "variants?")
        runs = experiments.find_runs(self._workspace)
        return Listing.table("experiments", runs, columns, row, empty="No experiment was started yet.")
