"""How many workers a server should have, from how busy those are that answer.

One number says how busy a worker is: the largest of its processor time, of its places that are taken, and of how long
its queue is in time, each as a share of what there is. Whichever of them grows first under a load is what answers wait
for. Out and in have limits far apart, and in takes long: a worker that has just come shall not go with the next pause.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass, field

from retrodict.core.errors import InputError

__all__ = ["MOST_WORKERS", "WorkerScale", "parse_workers"]

MOST_WORKERS = 32
_OUT, _OUT_S = 0.8, 3.0  # so busy on average of so long, and one more worker begins
_IN, _IN_S = 0.3, 60.0  # less all along, and one fewer
_RANGE = re.compile(r"(\d{1,3})-(\d{1,3})").fullmatch


def parse_workers(value: int | str) -> tuple[int, int]:
    """Fewest and most workers, of a number, a range like ``2-8``, or ``auto`` for 1 to as many as there are cores."""
    text = str(value)
    if text == "auto":
        return 1, min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    ends = _RANGE(text) or (re.fullmatch(r"\d{1,3}", text) and (None, text, text))
    lower, upper = (int(ends[1]), int(ends[2])) if ends else (0, 0)
    if not 1 <= lower <= upper <= MOST_WORKERS:
        raise InputError(
            f"workers must be a number from 1 to {MOST_WORKERS}, a range like 2-8, or 'auto'",
            where="workers",
            got=text[:20],
            remedy="Write for instance 4, 1-4 or auto",
        )
    return lower, upper


@dataclass(slots=True)
class WorkerScale:
    """Decides again and again how many workers there should be.

    Parameters
    ----------
    lower, upper : int
    """

    lower: int
    upper: int
    _history: deque[tuple[float, float]] = field(default_factory=deque)
    _quiet_since: float | None = None

    def count(self, now: float, busy: list[float]) -> int:
        """Workers there should be, one more or fewer than there are at most.

        Parameters
        ----------
        now : float
            Seconds of a clock that never goes back.
        busy : list of float
            How busy each of those is that answer; looked at about twice a second, while none is being started.
        """
        number = len(busy)
        self._history.append((now, sum(busy) / number))
        if self._history[0][0] > now - _OUT_S:  # too short a time to judge by
            return number
        while self._history[0][0] < now - _OUT_S:
            self._history.popleft()
        mean = sum(share for _, share in self._history) / len(self._history)
        if mean >= _IN or self._quiet_since is None:
            self._quiet_since = now
        if number < self.upper and mean > _OUT:
            return number + 1
        return number - 1 if number > self.lower and now - self._quiet_since >= _IN_S else number

    def changed(self) -> None:
        """Forget what was seen: it was of another number of workers."""
        self._history.clear()
        self._quiet_since = None
