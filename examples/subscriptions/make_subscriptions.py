"""Write subscriptions.csv: 4,000 subscriptions of which the hazard of a cancellation is known.

The hazard of a day is ``0.004 * exp(0.6 * tickets_z + plan + 0.5 * (seats < 5))``, constant over the time of a
subscription: ``tickets_z`` is the number of support tickets of the month before, less 3 and divided by 2, ``plan`` is
0.5 for monthly and -0.7 for yearly ones. The file was written on 2025-06-30: who had not cancelled by then has no
cancelled_at. One in twelve was sold with the business of a reseller, and not heard of from that day on (moved_at).
"""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

BEGIN, WRITTEN = datetime(2024, 1, 1, tzinfo=UTC), 546.0
PLANS = {"monthly": 0.5, "yearly": -0.7}

rng = np.random.default_rng(11)
started = np.sort(rng.uniform(0, 500, 4_000))
tickets, seats, plan = rng.poisson(3, 4_000), rng.geometric(0.12, 4_000), rng.choice(list(PLANS), 4_000)
hazard = 0.004 * np.exp(0.6 * (tickets - 3) / 2 + np.array([PLANS[name] for name in plan]) + 0.5 * (seats < 5))
cancelled = started + rng.exponential(1 / hazard)
moved = np.where(rng.random(4_000) < 1 / 12, started + rng.uniform(0, 200, 4_000), np.inf)


def text(day: float, last: float) -> str:
    """Moment as the file has it, to the second; empty where it is not known yet."""
    return (BEGIN + timedelta(days=float(day))).strftime("%Y-%m-%dT%H:%M:%SZ") if day < last else ""


with (Path(__file__).parent / "subscriptions.csv").open("w", newline="", encoding="utf-8") as stream:
    writer = csv.writer(stream)
    writer.writerow(["id", "started", "plan", "seats", "tickets", "cancelled_at", "moved_at"])
    for at in range(4_000):
        writer.writerow([
            f"s{at:04d}", text(started[at], WRITTEN), plan[at], seats[at], tickets[at],
            text(cancelled[at], min(WRITTEN, moved[at])), text(moved[at], min(WRITTEN, cancelled[at])),
        ])
