"""Writes invoices.csv: a year of invoices to twelve customers, each with their own habits; always the same file."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

CUSTOMERS = {
    "adler": -4, "birch": -2, "cedar": 0, "dahlia": 2, "elm": 4, "fern": 6,
    "ginkgo": 8, "hazel": 9, "iris": 11, "juniper": 13, "kelp": 15, "larch": 18,
}  # fmt: skip
ROWS = 420
START = datetime(2024, 1, 1, 9, tzinfo=UTC)


def rows(seed: int = 7) -> list[dict[str, object]]:
    """Invoices in the order they were written: late by habit, by amount and by chance."""
    rng = random.Random(seed)
    found: list[dict[str, object]] = []
    for number in range(ROWS):
        issued = START + timedelta(hours=20 * number + rng.randrange(8))
        customer = rng.choice(sorted(CUSTOMERS))
        amount = round(rng.lognormvariate(7, 0.8), 2)
        terms = rng.choice([14, 30])
        days_late = round(max(2 - terms, rng.gauss(CUSTOMERS[customer] + amount / 1000, 5)))
        paid = issued + timedelta(days=terms + days_late, hours=rng.randrange(1, 8))
        found.append(
            {"id": f"INV-{number + 1:04d}", "customer": customer, "amount": amount, "terms_days": terms,
             "issued": f"{issued:%Y-%m-%dT%H:%MZ}", "paid": f"{paid:%Y-%m-%dT%H:%MZ}", "days_late": days_late}
        )  # fmt: skip
    return found


def write(path: Path) -> None:
    """Write the file."""
    invoices = rows()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(invoices[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(invoices)


if __name__ == "__main__":
    write(Path(__file__).with_name("invoices.csv"))
