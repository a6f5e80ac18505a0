"""Wording of reasons, checked without a model: definitions load no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Formatter

from retrodict.core.errors import DefinitionError, check_known

__all__ = ["check_words"]

_OWN_FIELDS = ("direction", "feature", "value")


def check_words(
    words: Mapping[str, str], features: Iterable[str], others: Iterable[str] = (), *, where: str = "words"
) -> None:
    """Refuse wording that could never be filled: called when definitions are loaded, not when a decision is made.

    Parameters
    ----------
    words : mapping of str to str
        Template by feature. Fields: ``value``, ``feature``, ``direction``, or the name of a feature or known value.
    features : iterable of str
        Features of the model.
    others : iterable of str, default ()
        Other values at hand, such as entity keys.
    where : str, default "words"
        What to name in the error.

    Raises
    ------
    DefinitionError
        If a feature or field is unknown, or a field reaches into attributes or items.
    """
    features = set(features)
    fields = {*_OWN_FIELDS, *features, *others}
    for feature, template in words.items():
        place = f"{where} for {feature!r}"
        rule = "words must belong to a feature of the model"
        check_known(feature, features, rule, where=place, what="feature", error=DefinitionError)
        try:
            used = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            raise DefinitionError(f"words must be a format string ({error})", where=place, got=template,
                                  remedy="Write it like 'wind of {value:.0f} knots'") from error  # fmt: skip
        for name in sorted(used):
            rule = "a field of the words must be a feature or a value at hand"
            check_known(name, fields, rule, where=place, what="field", error=DefinitionError)
