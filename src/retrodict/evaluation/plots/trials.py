"""Pictures of a search: how it came to its best trial, and what each setting did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.evaluation.plots.canvas import ALERT, MAIN, QUIET, SOFT, drawing, require

__all__ = ["plot_shares", "plot_slice", "plot_trials"]


def plot_trials(trials: Sequence[Mapping[str, Any]], *, metric: str, better: str) -> str:
    """Value of each finished trial in their order, and the best so far; pruned and failed ones at the foot.

    Parameters
    ----------
    trials : sequence of mapping
        ``number``, ``state`` and ``value`` of each.
    metric : str
    better : {"higher", "lower"}

    Raises
    ------
    InputError
        If none is finished.
    """
    finished = [trial for trial in trials if trial["value"] is not None]
    require(finished, "at least one finished trial")
    choose = max if better == "higher" else min
    values = [trial["value"] for trial in finished]
    best = [choose(values[: at + 1]) for at in range(len(values))]
    with drawing("Trials") as canvas:
        axes = canvas.axes
        numbers = [trial["number"] for trial in finished]
        axes.scatter(numbers, values, color=SOFT, edgecolor=MAIN, linewidth=0.6, s=22, label="finished")
        axes.step(numbers, best, where="post", color=ALERT, linewidth=1.4, label=f"best: {best[-1]:.4g}")
        for state, marker in (("pruned", "|"), ("failed", "x")):
            others = [trial["number"] for trial in trials if trial["state"] == state]
            if others:
                axes.plot(others, [0.02] * len(others), marker, color=QUIET, markersize=5, label=state,
                          transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set(xlabel="trial", ylabel=f"{metric}, mean of the folds")
        axes.grid()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4)
    return canvas.svg


def plot_slice(trials: Sequence[Mapping[str, Any]], name: str, *, metric: str, better: str) -> str:
    """Value of each finished trial by what it chose for one setting; darker is later, the best is marked.

    Parameters
    ----------
    trials : sequence of mapping
        ``number``, ``choice`` and ``value`` of each.
    name : str
        Of the setting.
    metric : str
    better : {"higher", "lower"}

    Raises
    ------
    InputError
        If no finished trial chose anything for it.
    """
    finished = [trial for trial in trials if trial["value"] is not None and name in trial["choice"]]
    require(finished, f"at least one finished trial that chose {name!r}")
    choices = [trial["choice"][name] for trial in finished]
    plain = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices)
    words = [] if plain else sorted({str(choice) for choice in choices})
    places = choices if plain else [words.index(str(choice)) for choice in choices]
    choose = max if better == "higher" else min
    best = choose(range(len(finished)), key=lambda at: finished[at]["value"])
    with drawing(name) as canvas:
        axes = canvas.axes
        values = [trial["value"] for trial in finished]
        axes.scatter(places, values, c=[trial["number"] for trial in finished], cmap="Blues", edgecolor=MAIN,
                     linewidth=0.5, s=22, vmin=-len(finished))  # fmt: skip
        axes.scatter([places[best]], [values[best]], facecolor="none", edgecolor=ALERT, linewidth=1.6, s=60)
        if plain and min(places) > 0 and max(places) > 50 * min(places):
            axes.set_xscale("log")
        if words:
            axes.set_xticks(range(len(words)), words)
        axes.set(xlabel=name, ylabel=f"{metric}, mean of the folds")
        axes.grid()
    return canvas.svg


def plot_shares(shares: Mapping[str, float], *, title: str = "Importance of settings") -> str:
    """Bars of shares, the greatest first.

    Parameters
    ----------
    shares : mapping of str to float
        0 to 1 by name.
    title : str

    Raises
    ------
    InputError
        If there is none.
    """
    require(list(shares), "at least one share")
    names = sorted(shares, key=lambda name: shares[name])
    with drawing(title, height=max(1.2, 0.3 * len(names) + 0.7)) as canvas:
        axes = canvas.axes
        axes.barh(names, [shares[name] for name in names], color=MAIN, height=0.6)
        axes.set(xlabel="share of how the values differ")
        axes.grid(axis="x")
    return canvas.svg
