"""A challenger's report as a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrodict.core.display import when
from retrodict.core.files import write_text
from retrodict.evaluation.plots.beside import plot_differences, plot_flips, plot_score_pairs
from retrodict.pages import Note, Row, amount, document, themed_plot
from retrodict.pages.blocks import Block
from retrodict.rollout.report import ChallengerReport

__all__ = ["page_html", "write_page"]


def page_html(report: ChallengerReport, pairs: pa.Table) -> str:
    """Page of a report and its table of pairs; without the extra ``plots`` it has no figures and says so."""
    title = f"{report.challenger.name} beside {report.policy}, as of {amount(when(report.now))}"
    first, *others = report.blocks()
    return document(title, [first, *_figures(report, pairs), *others])


def write_page(path: Path, report: ChallengerReport, pairs: pa.Table) -> None:
    """Write :func:`page_html` into a file; its folder is made if it does not exist."""
    write_text(path, page_html(report, pairs))


def _figures(report: ChallengerReport, pairs: pa.Table) -> Iterator[Block]:
    old, new = (pairs.column(name).to_numpy().astype(float) for name in ("score", "replayed__score"))
    scored = ~(np.isnan(old) | np.isnan(new))
    figures = [
        themed_plot("pairs", plot_score_pairs, old[scored], new[scored]) if scored.sum() > 1 else None,
        themed_plot("flips", plot_flips, report.changes) if report.changes else None,
    ]
    groups = [(f"{one.column} {one.group}", 1 - one.agreement, one.verdict) for one in report.groups]
    spans = [(m.name.replace("_", " "), m.value, m.low, m.high) for m in report.differences()
             if m.value is not None and m.low is not None]  # fmt: skip
    figures += [
        themed_plot("differences", plot_differences, spans) if spans else None,
        themed_plot("groups", plot_flips, {name: part for name, part, _ in groups}, title="Share that would change",
                shares=True) if groups else None,
    ]  # fmt: skip
    blocks = [figure for figure in figures if figure is not None]
    if blocks and isinstance(blocks[0], Note):
        yield blocks[0]
    elif blocks:
        yield Row(blocks)
