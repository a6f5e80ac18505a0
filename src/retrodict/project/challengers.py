"""``project.challengers``: what would decide otherwise, beside what does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_modules
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict.rollout import page, rescore, window
    from retrodict.rollout.window import WindowReplay
else:
    page, rescore, window = lazy_modules("retrodict.rollout", "page", "rescore", "window")

__all__ = ["Challengers"]


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
