"""Reasons for one score: which features moved it, which way, and in words.

Contributions are in log-odds of the engine, before calibration: there they add up. They are measured from the bias,
which for trees is the expected margin over the training rows; that background is part of the engine, so of the
model's hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrodict.models.artifact import ModelArtifact
from retrodict.models.engines.base import Engine

__all__ = ["DEFAULT_WORDS", "Direction", "Explanation", "ExplainsRows", "Reason", "explain_row", "reason_texts"]

Direction = Literal["raises", "lowers"]

DEFAULT_WORDS = "{feature} = {value} {direction} {output}"
_TOGETHER = "Several models answer together: this is what each says, not what moved the answer"
_MISSING_WORDS = "{feature} is not known, which {direction} {output}"


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in one score.

    Attributes
    ----------
    feature : str
        Name of the feature.
    value : float, int, str, bool or None
        What it was; None where it was not known.
    contribution : float
        Share of the margin; above zero raises what is explained.
    text : str
        The same in words.
    """

    feature: str
    value: Any
    contribution: float
    text: str

    @property
    def direction(self) -> Direction:
        """Whether it raises or lowers what is explained."""
        return "raises" if self.contribution > 0 else "lowers"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one row has its score.

    Attributes
    ----------
    margin : float
        Log-odds of the engine.
    bias : float
        Where every row begins.
    reasons : tuple of Reason
        The strongest first.
    rest : float
        Sum of the contributions that are not among the reasons: ``margin = bias + reasons + rest``, up to rounding.
    note : str, optional
        What the reasons are where they are not shares of features, and why there are none; margin and rest are NaN.
    """

    margin: float
    bias: float
    reasons: tuple[Reason, ...]
    rest: float
    note: str | None = None


@runtime_checkable
class ExplainsRows(Protocol):
    """A model whose engine is elsewhere, and has to be asked there."""

    def explain_row(
        self, values: Mapping[str, Any], *, top: int = 4, words: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> Explanation:  # fmt: skip
        """Reasons as :func:`explain_row` gives them."""


def explain_row(
    model: ModelArtifact,
    values: Mapping[str, Any],
    *,
    top: int = 4,
    toward: Direction | None = None,
    words: Mapping[str, str] | None = None,
    output: str | None = None,
) -> Explanation:
    """Reasons for the score of one row.

    Parameters
    ----------
    model : ModelArtifact
        The model that scored.
    values : mapping of str to float, int, str, bool or None
        What it scored; further keys may be used by the words.
    top : int, default 4
        At most so many reasons; features that contribute nothing are never among them.
    toward : {"raises", "lowers"}, optional
        Only reasons of this direction, as for an adverse decision; None takes both.
    words : mapping of str to str, optional
        Template by feature, such as ``"{origin} arrivals {value:.0f} min late"``; see ``check_words``. Where there is
        none, or it cannot be filled (a missing value), the reason is said in default words: a decision does not fail
        for its wording.

    output : str, optional
        Of a time to an event: which horizon the reasons are of, ``event_by["90d"]``; None is the last one.

    Of several classes the reasons are of the likeliest one, of quantiles of the middle one. An ensemble that is no
    plain average is explained by what its members say.

    Examples
    --------
    >>> from retrodict.models.engines.linear import LinearEngine, NumberTerm
    >>> from retrodict.models.inputs import InputSpec
    >>> engine = LinearEngine(-1.0, (NumberTerm(mean=10.0, scale=5.0, weight=0.5),))
    >>> model = ModelArtifact("late_arrival", InputSpec.learn({"wind": [5.0, 15.0]}), engine)
    >>> [reason.text for reason in explain_row(model, {"wind": 20.0}).reasons]
    ['wind = 20 raises the score']
    """
    row = model.inputs.encode_row(values)
    engine = model.engine
    if not engine.explains:
        return _explain_by_members(engine, row, top, output)
    at = _explained_output(engine, row, output)
    *shares, bias = np.atleast_2d(engine.contributions(row))[at].tolist()
    movers = [(share, name) for share, name in zip(shares, model.inputs.names, strict=True) if share != 0.0]
    if toward is not None:
        movers = [(share, name) for share, name in movers if (share > 0) == (toward == "raises")]
    strongest = sorted(movers, key=lambda item: -abs(item[0]))[:top]  # stable: ties keep the order of the inputs
    name = engine.target.outputs[at]
    phrase = f"the {name}" if name in ("score", "value") else name
    reasons = tuple(_reason(name, share, values, (words or {}).get(name), phrase) for share, name in strongest)
    return Explanation(
        margin=float(np.atleast_1d(engine.margin(row))[at]),
        bias=bias,
        reasons=reasons,
        rest=sum(shares) - sum(share for share, _ in strongest),
    )


def _explained_output(engine: Engine, row: NDArray[np.float64], output: str | None) -> int:
    """Which of several outputs the reasons are of: the likeliest class, the middle quantile, the horizon decided on."""
    if engine.target.task == "survival":
        outputs = engine.target.outputs
        return outputs.index(output) if output in outputs else len(outputs) - 1
    if engine.target.task == "multiclass":
        return int(np.argmax(engine.score_row(row)))
    return (engine.target.columns - 1) // 2


def _explain_by_members(engine: Engine, row: NDArray[np.float64], top: int, output: str | None) -> Explanation:
    """What each member of an ensemble says; nothing, and why, of an engine that is none."""
    inner: Any = engine  # by their kinds: their module loads what fits them
    if inner.kind == "prepared":
        row, inner = inner.prepared_row(row), inner.engine
    if inner.kind != "ensemble":
        note = "A model of this kind has no exact share for each feature"
        return Explanation(math.nan, math.nan, (), math.nan, note)
    reasons = []
    for name, share, outputs in inner.opinions(row):
        answer, of = max(outputs) if isinstance(outputs, tuple) else outputs, ""
        if engine.target.task == "survival":
            at = _explained_output(engine, row, output)
            answer, of = np.atleast_1d(outputs)[at].item(), f" of {engine.target.outputs[at]}"
        text = f"{name} says {answer:.4g}{of}" + ("" if share is None else f", and has a share of {share:.0%}")
        reasons.append(Reason(name, answer, answer if share is None else share * answer, text))
    strongest = sorted(reasons, key=lambda reason: -abs(reason.contribution))[:top]
    return Explanation(math.nan, 0.0, tuple(strongest), math.nan, _TOGETHER)


def reason_texts(explanation: Explanation) -> list[str]:
    """Reasons in words, and before them what they are where they are not shares of features."""
    return [*([explanation.note] if explanation.note else []), *(reason.text for reason in explanation.reasons)]


def _reason(name: str, share: float, values: Mapping[str, Any], template: str | None, output: str) -> Reason:
    value = values[name]
    reason = Reason(name, value, share, "")
    fields = {**values, "feature": name, "value": value, "direction": reason.direction}
    return Reason(name, value, share, _fill_template(template, fields) or _default_text(fields, output))


def _fill_template(template: str | None, fields: Mapping[str, Any]) -> str | None:
    """Template filled in; None if a value it names is missing or of another type than it expects."""
    if template is None or fields["value"] is None:
        return None
    try:
        used = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        if any(fields[field] is None for field in used):
            return None
        return template.format_map(fields)
    except (LookupError, TypeError, ValueError):
        return None


def _default_text(fields: Mapping[str, Any], output: str) -> str:
    value = fields["value"]
    if value is None or value != value:  # noqa: PLR0124  # NaN
        return _MISSING_WORDS.format_map({**fields, "output": output})
    text = format(value, ".6g") if isinstance(value, float) else value
    return DEFAULT_WORDS.format_map({**fields, "value": text, "output": output})
