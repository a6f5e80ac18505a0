"""Reasons for one score: which features moved it, which way, and in words.

Contributions are in log-odds of the engine, before calibration: there they add up. They are measured from the bias,
which for trees is the expected margin over the training rows; that background is part of the engine, so of the
model's hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from retrodict.models.artifact import ModelArtifact

__all__ = ["DEFAULT_WORDS", "Direction", "Explanation", "Reason", "explain_row"]

Direction = Literal["raises", "lowers"]

DEFAULT_WORDS = "{feature} = {value} {direction} the score"
_MISSING_WORDS = "{feature} is not known, which {direction} the score"


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
        Share of the margin, in log-odds; above zero raises the score.
    text : str
        The same in words.
    """

    feature: str
    value: Any
    contribution: float
    text: str

    @property
    def direction(self) -> Direction:
        """Whether it raises or lowers the score."""
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
    """

    margin: float
    bias: float
    reasons: tuple[Reason, ...]
    rest: float


def explain_row(
    model: ModelArtifact,
    values: Mapping[str, Any],
    *,
    top: int = 4,
    toward: Direction | None = None,
    words: Mapping[str, str] | None = None,
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
    *shares, bias = model.engine.contributions(row).tolist()
    moved = [(share, name) for share, name in zip(shares, model.inputs.names, strict=True) if share != 0.0]
    if toward is not None:
        moved = [(share, name) for share, name in moved if (share > 0) == (toward == "raises")]
    strongest = sorted(moved, key=lambda item: -abs(item[0]))[:top]  # stable: ties keep the order of the inputs
    reasons = tuple(_reason(name, share, values, (words or {}).get(name)) for share, name in strongest)
    return Explanation(
        margin=model.engine.margin(row),
        bias=bias,
        reasons=reasons,
        rest=sum(shares) - sum(share for share, _ in strongest),
    )


def _reason(name: str, share: float, values: Mapping[str, Any], template: str | None) -> Reason:
    value = values[name]
    reason = Reason(name, value, share, "")
    fields = {**values, "feature": name, "value": value, "direction": reason.direction}
    return Reason(name, value, share, _fill_template(template, fields) or _default_text(fields))


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


def _default_text(fields: Mapping[str, Any]) -> str:
    value = fields["value"]
    if value is None or value != value:  # noqa: PLR0124  # NaN
        return _MISSING_WORDS.format_map(fields)
    text = format(value, ".6g") if isinstance(value, float) else value
    return DEFAULT_WORDS.format_map({**fields, "value": text})
