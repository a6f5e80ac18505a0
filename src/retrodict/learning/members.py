"""Members of an ensemble on the test rows: was joining them worth it, what each costs, how alike they err."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.display import Grid
from retrodict.evaluation import Cost, Ladder, climb, correlate_errors
from retrodict.evaluation.losses import LOSSES
from retrodict.learning.rungs import cost_of
from retrodict.learning.runs import Run
from retrodict.models.engines.base import Engine
from retrodict.models.engines.composite import EnsembleEngine, PreparedEngine
from retrodict.models.problem import Examples

__all__ = ["compare_members", "cost_grid", "member_grid", "members_of"]

Outputs = NDArray[np.float64]


def members_of(engine: Engine, test: Examples, seconds: Mapping[str, float]) -> dict[str, tuple[Outputs, Cost]]:
    """Outputs for the test rows and cost of each member of an ensemble by ``member NAME``, the smallest first.

    Parameters
    ----------
    engine : Engine
        Of any kind; one that is no ensemble has no members.
    test : Examples
    seconds : mapping of str to float
        How long each member's fit took.
    """
    inner: Any = engine
    if isinstance(inner, PreparedEngine):
        inner, test = inner.engine, replace(test, matrix=inner.transform(test.matrix))
    members = {
        f"member {member.name}": (
            member.engine.scores(test.matrix),
            cost_of(member.engine, test, seconds.get(member.name)),
        )
        for member in (inner.members if isinstance(inner, EnsembleEngine) else ())
    }
    return dict(sorted(members.items(), key=lambda item: item[1][1].size_kb or 0.0))


def compare_members(
    members: Mapping[str, tuple[Outputs, Cost]], outputs: Outputs, cost: Cost, test: Examples
) -> dict[str, Any]:
    """The ensemble against each member by a paired test of the test rows, and how the members' errors correlate.

    Outputs are those before calibration, which the ensemble alone has: no member was fitted on these rows.

    Returns
    -------
    dict
        Under ``members``, as plain data; empty where there are none.
    """
    if not members:
        return {}
    answers = {name: values for name, (values, _) in members.items()}
    costs = {name: cost for name, (_, cost) in members.items()} | {"candidate": cost}
    labels: dict[str, Any] = {"labels": test.labels, "target": test.target, "groups": test.groups}
    ladder = climb(candidate=outputs, rungs=answers, costs=costs, **labels)
    measure = {"binary": "AUC", "ranking": "NDCG"}.get(test.target.task, LOSSES[test.target.task])
    correlation = correlate_errors(outputs=answers, **labels)
    body = {"ladder": ladder.to_dict(), "measure": measure, "advice": ladder.advice(), "correlation": correlation}
    return {"members": body}


def member_grid(notes: Mapping[str, Any]) -> Grid | None:
    """Each member beside the ensemble, and the member that errs most like it; None where a run has no members."""
    if not (body := notes.get("members")):
        return None
    ladder, correlation, lines = Ladder.from_dict(body["ladder"]), body["correlation"], []
    for rung in reversed(ladder.rungs):
        verdict, others = rung.verdict, {k: v for k, v in correlation.get(rung.name, {}).items() if v is not None}
        closest = max(others, key=lambda name: others[name], default="")
        assert verdict is not None  # that of each rung was judged
        status = {None: "not evaluable", True: "better", False: "not better"}[verdict.value]
        gain = (verdict.difference, verdict.low, verdict.high)
        lines.append((_short(rung.name), status, *gain, _short(closest), others.get(closest)))
    names = ("member", "the ensemble is", "by>", "from>", "to>", "errs most like", "correlation>")
    return Grid(
        names, lines, title=f"members, and how much better the ensemble is by {body['measure']} of the test rows"
    )


def cost_grid(run: Run) -> Grid | None:
    """What the model, each rung of its ladder and each member of an ensemble costs; None where there was no ladder."""
    if not run.summary.get("ladder"):
        return None
    bodies = [run.summary["ladder"], ((run.summary.get("notes") or {}).get("members") or {}).get("ladder")]
    ladders = [Ladder.from_dict(body) for body in bodies if body]
    costs = [(str(run.params.get("estimator", "model")), ladders[0].cost)]
    costs += [(rung.name, rung.cost) for ladder in ladders for rung in reversed(ladder.rungs)]
    lines = [(name, cost.size_kb, cost.latency_us, cost.train_seconds) for name, cost in costs if cost is not None]
    return Grid(("what it costs", "kB>", "one row, µs>", "training, s>"), lines) if lines else None


def _short(name: str) -> str:
    return name.removeprefix("member ")
