"""Engines made of others: steps before one, and several that answer together.

Their stored form is a tree: ``tree.json`` says what they are and how they are put together, and the parts of the n-th
engine stand under ``n/``. So an ensemble of prepared members is stored, hashed and read by the same few lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.models.engines.base import Engine, check_matrix, check_row
from retrodict.models.estimators import load_engine

if TYPE_CHECKING:
    from retrodict.estimators.balance import PriorCorrection
    from retrodict.estimators.steps import Step

__all__ = ["Combination", "CorrectedEngine", "EnsembleEngine", "Member", "PreparedEngine"]

_TREE = "tree.json"
Combination = Literal["mean", "hard", "stack"]


def _parts(tree: Mapping[str, Any], engines: Sequence[Engine]) -> dict[str, bytes]:
    body = {**tree, "engines": [engine.kind for engine in engines]}
    files = {f"{at}/{file}": data for at, engine in enumerate(engines) for file, data in engine.parts().items()}
    return {_TREE: canonical_json(body), **files}


def _read(parts: Mapping[str, bytes]) -> tuple[dict[str, Any], list[Engine]]:
    tree = json.loads(parts[_TREE])
    engines = []
    for at, kind in enumerate(tree["engines"]):
        prefix = f"{at}/"
        parts_of = {file.removeprefix(prefix): data for file, data in parts.items() if file.startswith(prefix)}
        engines.append(load_engine(kind, parts_of))
    return tree, engines


class PreparedEngine:
    """Fitted steps, then an engine on what comes out of them.

    Parameters
    ----------
    steps : sequence of Step
        Fitted, in order; the first reads rows of ``width`` numbers.
    engine : Engine
    width : int
        Number of features before the steps.
    """

    kind: ClassVar[str] = "prepared"

    def __init__(self, steps: Sequence[Step], engine: Engine, width: int) -> None:
        self.steps, self.engine, self._width = tuple(steps), engine, width
        self._sources = _sources(self.steps, width)

    @property
    def target(self) -> Target:
        """That of the engine."""
        return self.engine.target

    @property
    def width(self) -> int:
        """Number of features before the steps."""
        return self._width

    @property
    def exact_rows(self) -> bool:
        """Whether steps and engine are."""
        return self.engine.exact_rows and all(step.exact_rows for step in self.steps)

    @property
    def explains(self) -> bool:
        """Whether the engine does."""
        return self.engine.explains

    def transform(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows as the engine gets them, shape (n, columns after the steps)."""
        check_matrix(matrix, self._width)
        for step in self.steps:
            matrix = np.ascontiguousarray(step.transform(matrix), dtype=np.float64)
        return matrix

    def prepared_row(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """One row as the engine gets it."""
        values = check_row(row, self._width).tolist()
        for step in self.steps:
            values = step.transform_row(values)
        return np.array(values, dtype=np.float64)

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, outputs)."""
        return self.engine.scores(self.transform(matrix))

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        return self.engine.score_row(self.prepared_row(row))

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Margins of the engine."""
        return self.engine.margins(self.transform(matrix))

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Margin of one row."""
        return self.engine.margin(self.prepared_row(row))

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares of the columns after the steps, summed by the feature each comes from, then the bias.

        A column made of several features is shared equally among them.
        """
        shares = self.engine.contributions(self.prepared_row(row))
        return np.asarray(shares @ self._spread, dtype=np.float64)

    @cached_property
    def _spread(self) -> NDArray[np.float64]:
        """Matrix (columns after the steps + 1, features + 1) that gives each column's share to its features."""
        sources = self._sources
        spread = np.zeros((len(sources) + 1, self._width + 1))
        spread[-1, -1] = 1.0
        for column, places in enumerate(sources):
            spread[column, list(places)] = 1.0 / len(places)
        return spread

    def parts(self) -> Mapping[str, bytes]:
        """Tree and parts of the engine."""
        return _parts({"steps": [step.to_dict() for step in self.steps], "width": self._width}, [self.engine])

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> PreparedEngine:
        """Read what :meth:`parts` gave."""
        from retrodict.estimators.steps import load_step

        tree, (engine,) = _read(parts)
        return cls([load_step(body) for body in tree["steps"]], engine, tree["width"])

    def fingerprint(self) -> str:
        """SHA-256 of the steps and of what the engine learned."""
        steps = [step.to_dict() for step in self.steps]
        return digest(canonical_json({"steps": steps, "engine": self.engine.fingerprint()}))


def _sources(steps: Sequence[Step], width: int) -> tuple[tuple[int, ...], ...]:
    """Features that each column after the steps is made of."""
    sources: list[tuple[int, ...]] = [(place,) for place in range(width)]
    for step in steps:
        sources = [tuple(sorted({f for place in places for f in sources[place]})) for places in step.sources_]
    return tuple(sources)


class CorrectedEngine:
    """An engine that was fitted on balanced classes, its probabilities brought back to the shares of life.

    Of a yes or no that adds one number to the log-odds, so to the bias; contributions of features stay.

    Parameters
    ----------
    engine : Engine
    correction : PriorCorrection
    """

    kind: ClassVar[str] = "corrected"

    def __init__(self, engine: Engine, correction: PriorCorrection) -> None:
        self.engine, self.correction = engine, correction
        odds = [prior / trained for prior, trained in zip(correction.prior, correction.trained, strict=True)]
        self._shift = math.log(odds[1] / odds[0])

    @property
    def target(self) -> Target:
        """That of the engine."""
        return self.engine.target

    @property
    def width(self) -> int:
        """Number of features."""
        return self.engine.width

    @property
    def exact_rows(self) -> bool:
        """Whether the engine is."""
        return self.engine.exact_rows

    @property
    def explains(self) -> bool:
        """Whether the engine does, for a yes or no."""
        return self.engine.explains and self.target.task == "binary"

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corrected probabilities."""
        return self.correction.apply(self.engine.scores(matrix))

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Corrected probabilities of one row."""
        return self.correction.apply_row(self.engine.score_row(row))

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Margins of the engine, moved."""
        return self.engine.margins(matrix) + self._shift

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Margin of one row."""
        return self.engine.margin(row) + self._shift

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Those of the engine, and the bias moved."""
        shares = self.engine.contributions(row).copy()
        shares[-1] += self._shift
        return shares

    def parts(self) -> Mapping[str, bytes]:
        """Tree and parts of the engine."""
        return _parts({"correction": self.correction.to_dict()}, [self.engine])

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> CorrectedEngine:
        """Read what :meth:`parts` gave."""
        from retrodict.estimators.balance import PriorCorrection

        tree, (engine,) = _read(parts)
        return cls(engine, PriorCorrection.from_dict(tree["correction"]))

    def fingerprint(self) -> str:
        """SHA-256 of the correction and of what the engine learned."""
        body = {"correction": self.correction.to_dict(), "engine": self.engine.fingerprint()}
        return digest(canonical_json(body))


class Member:
    """One engine of an ensemble: its name, how much it counts, and what it says of a row."""

    __slots__ = ("engine", "name", "weight")

    def __init__(self, name: str, engine: Engine, weight: float = 1.0) -> None:
        self.name, self.engine, self.weight = name, engine, weight


class EnsembleEngine:
    """Several engines on the same rows, whose outputs are averaged, counted as votes, or read by a final engine.

    Parameters
    ----------
    members : sequence of Member
        All of one target.
    how : {"mean", "hard", "stack"}
        ``mean``: outputs weighted by the members' weights, divided by their sum. ``hard``: each member votes for its
        likeliest class, and shares of the votes are the outputs. ``stack``: the final engine reads the outputs.
    final : Engine, optional
        Of a stack: reads the members' outputs beside each other, and the features after them where ``passthrough``.
    passthrough : bool, default False
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(
        self, members: Sequence[Member], how: Combination, *, final: Engine | None = None, passthrough: bool = False
    ) -> None:
        self.members, self.how, self.final, self.passthrough = tuple(members), how, final, passthrough
        targets = {member.engine.target for member in self.members}
        if len(targets) != 1 or len({member.engine.width for member in self.members}) != 1:
            raise InputError("the members of an ensemble must read the same rows and predict the same", where="engine",
                             got=sorted(target.task for target in targets),
                             remedy="Fit them on one problem")  # fmt: skip
        total = math.fsum(member.weight for member in self.members)
        if not total > 0 or any(member.weight < 0 for member in self.members) or (how == "stack") != bool(final):
            raise InputError("weights of members must be zero or more, and not all zero", where="engine", got=total,
                             remedy="Leave the weights out")  # fmt: skip
        self._shares = [member.weight / total for member in self.members]

    @property
    def target(self) -> Target:
        """That of its members."""
        return self.members[0].engine.target

    @property
    def width(self) -> int:
        """Number of features."""
        return self.members[0].engine.width

    @property
    def exact_rows(self) -> bool:
        """Whether all of its engines are; what it adds is summed in one order."""
        return all(engine.exact_rows for engine in self._engines)

    @property
    def explains(self) -> bool:
        """Whether shares of features add up: averages of values whose members explain, with no link in between."""
        return self.how == "mean" and self.target.task == "regression" and all(e.explains for e in self._engines)

    @property
    def _engines(self) -> list[Engine]:
        return [*(member.engine for member in self.members), *([self.final] if self.final is not None else [])]

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, outputs)."""
        check_matrix(matrix, self.width)
        answers = [member.engine.scores(matrix) for member in self.members]
        if self.final is not None:
            return self.final.scores(stacked(answers, matrix if self.passthrough else None))
        if self.how == "hard":
            answers = [self._votes(outputs) for outputs in answers]
        total = np.zeros_like(answers[0])
        for outputs, share in zip(answers, self._shares, strict=True):
            total += share * outputs
        return total

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        check_row(row, self.width)
        if self.final is not None:
            answers = [member.engine.score_row(row) for member in self.members]
            flat = [value for outputs in answers for value in (outputs if isinstance(outputs, tuple) else (outputs,))]
            return self.final.score_row(np.array([*flat, *(row.tolist() if self.passthrough else ())]))
        if self.how == "hard" or self.target.columns > 1:
            outputs = self.scores(row[None, :])[0]
            return float(outputs) if self.target.columns == 1 else tuple(outputs.tolist())
        total = 0.0
        for member, share in zip(self.members, self._shares, strict=True):
            total += share * member.engine.score_row(row)
        return total

    def _votes(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 for the likeliest class, else 0; of equal ones the first."""
        if outputs.ndim == 1:
            return (outputs >= 0.5).astype(np.float64)
        return np.asarray(np.eye(outputs.shape[1])[outputs.argmax(axis=1)])

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs: there is nothing beneath them that adds up."""
        return self.scores(matrix)

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        return self.score_row(row)

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighted sum of the members' contributions, where they add up to a value."""
        if not self.explains:
            raise InputError("an ensemble must average values to have contributions", where="engine", got=self.how,
                             remedy="Ask what each member says")  # fmt: skip
        total = np.zeros(self.width + 1)
        for member, share in zip(self.members, self._shares, strict=True):
            total += share * member.engine.contributions(row)
        return total

    def opinions(self, row: NDArray[np.float64]) -> list[tuple[str, float | None, Any]]:
        """What each member says of a row: its name, its share of the answer (of a stack: none), and its outputs."""
        return [
            (member.name, None if self.final is not None else share, member.engine.score_row(row))
            for member, share in zip(self.members, self._shares, strict=True)
        ]

    def parts(self) -> Mapping[str, bytes]:
        """Tree and parts of every engine; the final one is the last."""
        members = [{"name": member.name, "weight": member.weight} for member in self.members]
        return _parts({"how": self.how, "members": members, "passthrough": self.passthrough}, self._engines)

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> EnsembleEngine:
        """Read what :meth:`parts` gave."""
        tree, engines = _read(parts)
        final = engines.pop() if tree["how"] == "stack" else None
        members = [Member(body["name"], engine, body["weight"])
                   for body, engine in zip(tree["members"], engines, strict=True)]  # fmt: skip
        return cls(members, tree["how"], final=final, passthrough=tree["passthrough"])

    def fingerprint(self) -> str:
        """SHA-256 of how they are put together and of what each learned."""
        members = [{"name": m.name, "weight": m.weight, "engine": m.engine.fingerprint()} for m in self.members]
        final = self.final.fingerprint() if self.final is not None else None
        body = {"how": self.how, "members": members, "final": final, "passthrough": self.passthrough}
        return digest(canonical_json(body))


def stacked(answers: Sequence[NDArray[np.float64]], matrix: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Outputs of members beside each other, shape (n, sum of outputs), and the features after them, if given."""
    columns = [outputs if outputs.ndim == 2 else outputs[:, None] for outputs in answers]
    return np.ascontiguousarray(np.hstack([*columns, *([matrix] if matrix is not None else [])]))
