"""Renders pages: one Jinja environment, and the filters that write numbers and times for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from retrodict.core.display import Facts, Grid, Tree
from retrodict.pages.blocks import Block, Details, Figure, Note, Row, Section

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["amount", "document", "percent", "render"]

_TIME = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?)?)?")


def render(template: str, **values: Any) -> str:
    """Page from one of the templates of this room.

    Parameters
    ----------
    template : str
        Name of a file in ``templates``.
    **values
        What the template names; a missing one is an error.

    Returns
    -------
    str
        A whole document.
    """
    return _environment().get_template(template).render(**values)


def document(title: str, blocks: Sequence[Block | None]) -> str:
    """Page of a title and blocks, one below the other; None is left out."""
    return render("document.html", title=title, blocks=[block for block in blocks if block is not None])


def amount(value: object) -> str:
    """Write a value for people: four digits, thousands apart, times to the second, a dash for None.

    Examples
    --------
    >>> amount(1234567), amount(0.0312345), amount("2013-01-01T10:00:00Z"), amount(None), amount([True, 2])
    ('1,234,567', '0.03123', '2013-01-01 10:00', '-', 'yes, 2')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.4g}"
    if isinstance(value, float):
        return _fraction(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(amount, value)) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {amount(item)}" for name, item in value.items()) or "-"
    text = str(value)
    if _TIME.fullmatch(text) and "T" in text:
        return text[: len("2013-01-01T10:00:00")].replace("T", " ").removesuffix("Z").removesuffix(":00")
    return text


def _fraction(value: float) -> str:
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size < 1e9 and (value == round(value) or size >= 1e3):
        return f"{value:,.0f}"
    return f"{value:.4g}" if 1e-4 <= size < 1e3 else f"{value:.3g}"


def percent(share: float) -> str:
    """Share of one as a percentage; a small one never reads as zero, a large one never as all.

    Examples
    --------
    >>> percent(0.25), percent(0.0001), percent(0.9999), percent(1.0)
    ('25.0%', '<0.1%', '>99.9%', '100%')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.999 else ">99.9%"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("retrodict.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"amount": amount, "percent": percent}
    environment.tests["time"] = lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None
    for kind in (Facts, Grid, Tree, Figure, Note, Row, Details, Section):
        environment.tests[kind.__name__.lower()] = lambda value, kind=kind: isinstance(value, kind)
    return environment
