"""What a read gives: values, and for each of them why it is what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FeatureRow", "Place", "Status", "age_of"]

Place = tuple[int | None, int, int | None]
Status = Literal["present", "null", "expired", "not_found", "late", "no_state", "not_read"]


@dataclass(slots=True)
class FeatureRow:
    """Features of one request.

    Attributes
    ----------
    values : dict of str to value or None
        By full name, in the order of the feature set; times as microseconds, maps as dict, several values as list.
    statuses : dict of str to str
        Per view: ``ok``; ``null_key``; ``no_state`` (nothing was written for the view, or its table is
        still being read for the first time: values are null); ``unseen`` (no visible
        event of this key within reach); ``beyond_horizon`` (the request is too old for the state: values are null);
        ``not_read`` (no state could be read: values are null).
    events : dict of str to int
        Per view: visible events within reach of its widest window, or 1 for a latest value.
    expired : set of str
        Latest values that are older than their ``max_age``, and views whose events are all out of reach.
    places : dict of str to (int or None, int, int or None)
        Per view that has a state, what that contained: a version of its table (None: nothing of it), how many of that
        version's rows, and how many records of its stream (None: it follows none).
    newest : dict of str to (int or None), optional
        What ``watermarks`` gives for each view, where the read has brought it along.
    """

    values: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)
    places: dict[str, Place] = field(default_factory=dict, compare=False)
    newest: dict[str, int | None] | None = field(default=None, compare=False)

    def status(self, name: str) -> Status:
        """Why a feature has the value it has.

        Parameters
        ----------
        name : str
            Full name of a feature of a view.

        Returns
        -------
        str
            ``present``; ``null`` (the newest event says so, or nothing in the window gives a value, or a part of the
            key is null); ``expired`` (events of the key are known, all out of reach); ``not_found`` (the key has
            none); ``late`` (the request is older than what the state answers exactly); ``no_state`` (the state of the
            view was not built); ``not_read`` (the read failed: nothing is known of the view).
        """
        view = name.partition("__")[0]
        status = self.statuses.get(view, "ok")
        if status == "beyond_horizon":
            return "late"
        if status == "no_state":
            return "no_state"
        if status == "not_read":
            return "not_read"
        if status == "unseen":
            return "expired" if view in self.expired else "not_found"
        if self.values[name] is not None:
            return "present"
        return "expired" if name in self.expired else "null"


def age_of(moment: int | None, at: int) -> float | None:
    """Seconds at a request since the newest event of a view became visible.

    None: there was no event; or the request is from before it, and nobody knows what was the newest then.
    """
    return None if moment is None or moment > at else (at - moment) / 1e6
