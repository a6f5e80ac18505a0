"""``project.challengers``: what would decide otherwise, beside what does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retrodict.core.display import Block, Listing, Shown
from retrodict.core.lazy import lazy_modules
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict import registry
    from retrodict.registry import Revision
    from retrodict.rollout import candidacy, page, promotion, rescore, shadow_report, shadows, window
    from retrodict.rollout.candidacy import Candidacy
    from retrodict.rollout.report import ChallengerReport
    from retrodict.rollout.shadow_report import ShadowReport
    from retrodict.rollout.window import WindowReplay
else:
    (registry,) = lazy_modules("retrodict", "registry")
    candidacy, page, promotion, rescore, shadow_report, shadows, window = lazy_modules(
        "retrodict.rollout", "candidacy", "page", "promotion", "rescore", "shadow_report", "shadows", "window"
    )

__all__ = ["Challengers", "FollowReport"]


@dataclass(frozen=True, repr=False)
class FollowReport(Shown):
    """How many decisions a follower has read."""

    decisions: int

    def blocks(self) -> Sequence[Block | None]:
        """One line."""
        return [f"{self.decisions:,} decisions read."]


class Challengers(Namespace):
    """Challengers of a project's policies."""

    @names_damage
    def replay(
        self,
        policy: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        model: str | None = None,
        other: str | None = None,
        by: Sequence[str] = (),
        jobs: int = 1,
        html: str | Path | None = None,
    ) -> WindowReplay:
        """Decide the requests of a window again with another model or policy, and compare.

        On the feature values in the log, or as of each decision where the log lacks them. Each original is computed
        again too. Without --model and --policy it is what decides now. Killed, the same call goes on. Exit code 1 if
        an original does not come out bit for bit.

        Parameters
        ----------
        policy : str
            Whose decisions: a deployed policy.
        start : Time, optional
            Only decisions from this time on.
        end : Time, optional
            Only decisions before this time.
        model : str, optional
            Version that scores, as name@version.
        other : str, optional
            Defined policy whose rules and thresholds decide.
        by : list of str
            Entity, context value or feature whose groups are compared; may be repeated.
        jobs : int
            Processes.
        html : path, optional
            Also write the report as a page of HTML to this file.
        """
        challenger = rescore.make_challenger(self._workspace, policy, model=model, other=other)
        span = window.DecisionSpan(policy, instant(start, "start"), instant(end, "end"), tuple(by))
        with self._project.progress(f"replay {policy}") as progress:
            result = window.replay_window(self._workspace, span, challenger, jobs=jobs, progress=progress)
        if html is not None:
            page.write_page(Path(html), result.report, result.table)
        return result

    def add(
        self, policy: str, name: str, *, reason: str, model: str | None = None, other: str | None = None
    ) -> Candidacy:
        """Name a challenger of a policy, which is to be compared and perhaps promoted.

        Refused if it reads what requests of the policy do not bring.

        Parameters
        ----------
        policy : str
            A deployed policy.
        name : str
            What it is called from now on.
        reason : str
            Why, for the ledger.
        model : str, optional
            Version that scores, as name@version.  [default: the one in force]
        other : str, optional
            Defined policy whose rules and thresholds decide.  [default: the one in force]
        """
        challenger = rescore.make_challenger(self._workspace, policy, model=model, other=other, name=name)
        return candidacy.add_challenger(self._workspace, policy, challenger, reason=reason)

    @names_damage
    def report(
        self,
        policy: str,
        name: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        by: Sequence[str] = (),
        jobs: int = 1,
        html: str | Path | None = None,
    ) -> ChallengerReport:
        """Compare a challenger with what decided, and keep that as the evidence that is reviewed.

        What it made of live requests as a shadow; where it was none, or with --from or --to, a replay of the window.

        Parameters
        ----------
        policy : str
            A deployed policy.
        name : str
            Of the challenger.
        start : Time, optional
            Only decisions from this time on.
        end : Time, optional
            Only decisions before this time.
        by : list of str
            Entity, context value or feature whose groups are compared; may be repeated.
        jobs : int
            Processes of a replay.
        html : path, optional
            Also write the report as a page of HTML to this file.
        """
        one, now = candidacy.find_candidacy(self._workspace, policy, name), self._workspace.clock.now()
        first, last, tallies = instant(start, "start"), instant(end, "end"), []
        with self._project.progress(f"challenger {name}") as progress:
            if first is None and last is None:
                tallies = shadow_report.report_shadows(self._workspace, policy, now=now, by=by).shadows
                tallies = [
                    tally for tally in tallies if tally.report.challenger == one.challenger and tally.report.decisions
                ]
            if tallies:
                report, pairs = tallies[0].report, tallies[0].pairs
            else:
                span = window.DecisionSpan(policy, first, last, tuple(by))
                result = window.replay_window(self._workspace, span, one.challenger, jobs=jobs, progress=progress)
                report, pairs = result.report, result.table
        candidacy.enter_evidence(self._workspace, one, report, source="shadow" if tallies else "replay")
        if html is not None:
            page.write_page(Path(html), report, pairs)
        return report

    def review(
        self, policy: str, name: str, *, role: Literal["business", "risk"], reason: str, refuse: bool = False
    ) -> Candidacy:
        """Say yes to the newest evidence on a challenger, or no.

        First the business, then risk, by two people, neither of whom added the challenger.

        Parameters
        ----------
        policy : str
            A deployed policy.
        name : str
            Of the challenger.
        role : str
            For whom.
        reason : str
            Why, for the ledger.
        refuse : bool
            Say no.
        """
        return candidacy.review_challenger(self._workspace, policy, name, role=role, granted=not refuse, reason=reason)

    def promote(self, policy: str, name: str, *, reason: str, emergency: bool = False) -> Revision:
        """Let a reviewed challenger decide: as a canary, by the rollout of its policy.

        Where no rollout is defined for the policy, and in an emergency, it decides everything at once, and what decided
        becomes what a rollback goes back to.

        Parameters
        ----------
        policy : str
            A deployed policy.
        name : str
            Of the challenger.
        reason : str
            Why, for the ledger.
        emergency : bool
            Without reviews, and at once; that they are due stays marked until they are there.
        """
        return promotion.promote_challenger(self._workspace, policy, name, reason=reason, emergency=emergency)

    @names_damage
    def list(self, policy: str | None = None) -> Listing[Candidacy]:
        """List challengers and how far they are, reviews that are due among them.

        Parameters
        ----------
        policy : str, optional
            Only this policy's.
        """

        def row(one: Candidacy) -> tuple[object, ...]:
            return one.policy, one.challenger.name, one.challenger.model, one.added_by, one.stage

        states = candidacy.candidacies(self._workspace, policy)
        columns = ("policy", "challenger", "model", "added by", "stage")
        return Listing.table("challengers", states, columns, row, empty="No challenger was added yet.")

    def start_shadow(
        self,
        policy: str,
        *,
        reason: str,
        model: str | None = None,
        other: str | None = None,
        name: str | None = None,
    ) -> Revision:
        """Let a challenger decide every request too, after the answer and beside it.

        Refused if it reads what requests do not bring, or a view whose online state was never built.

        Parameters
        ----------
        policy : str
            A deployed policy.
        reason : str
            Why, for the ledger.
        model : str, optional
            Version that scores, as name@version.  [default: the one in force]
        other : str, optional
            Defined policy whose rules and thresholds decide.  [default: the one in force]
        name : str, optional
            Of a challenger that was added, or what reports call it.  [default: what it is made of]
        """
        states = {} if model or other else {one.challenger.name: one for one in self.list(policy)}
        if name in states:
            challenger = states[name].challenger
        else:
            challenger = rescore.make_challenger(self._workspace, policy, model=model, other=other, name=name)
        return shadows.start_shadow(self._workspace, policy, challenger, reason=reason)

    def stop_shadow(self, policy: str, name: str, *, reason: str) -> Revision:
        """Let a challenger look on no longer; its results stay.

        Parameters
        ----------
        policy : str
            A deployed policy.
        name : str
            Of the shadow.
        reason : str
            Why, for the ledger.
        """
        return shadows.stop_shadow(self._workspace, policy, name, reason=reason)

    def run_shadows(self, *, once: bool = False, parent: int | None = None) -> FollowReport:
        """Follow the decision log and decide again what shadows are to look on to, until Ctrl-C.

        `serve` starts one while there is a shadow. One process of a project at a time.

        Parameters
        ----------
        once : bool
            Up to the present end of the log, and end.
        parent : int, optional
            End when this process has ended.
        """
        return FollowReport(shadows.follow(self._workspace, once=once, parent=parent))

    def has_shadows(self) -> bool:
        """Whether any policy has a shadow now."""
        return any(one.deployment.shadows for one in registry.current(self._workspace).values())

    @names_damage
    def shadow_report(
        self,
        policy: str,
        *,
        name: str | None = None,
        by: Sequence[str] = (),
        html: str | Path | None = None,
    ) -> ShadowReport:
        """Compare what shadows made of the requests with what was decided.

        Agreement, changes, scores, times and errors of each, quality on the outcomes that are known by now, and how
        shadows differ among themselves.

        Parameters
        ----------
        policy : str
            A deployed policy.
        name : str, optional
            Only this shadow.
        by : list of str
            Entity, context value or feature whose groups are compared; may be repeated.
        html : path, optional
            Also write the report of the first one as a page of HTML to this file.
        """
        now = self._workspace.clock.now()
        with self._project.progress(f"shadows of {policy}"):
            report = shadow_report.report_shadows(self._workspace, policy, now=now, by=by, name=name)
        if html is not None and report.shadows:
            page.write_page(Path(html), report.shadows[0].report, report.shadows[0].pairs)
        return report
