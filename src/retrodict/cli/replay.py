"""``replay``: a training or a decision executed again and compared, bit for bit."""

from __future__ import annotations

from typing import Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import facts, seconds, table, to_json
from retrodict.cli._types import complete, run_refs

replay = group(cli, "replay", "Execute a training or a decision again and compare, bit for bit.")


@command(replay, "run", examples=["retrodict replay run run:01J…"])
@click.argument("ref", shell_complete=complete(run_refs))
def replay_training(session: Session, ref: str) -> Answer:
    """Train a past run again and compare.

    From its own code, table versions, split and seed. Exit code 1 if the result is not exact.
    """
    from retrodict.learning import replay_run

    with session.progress("replay") as progress:
        found = replay_run(session.project, ref, progress=progress)
    about = facts(
        {
            "run": found.run,
            "verdict": found.verdict,
            "reason": found.reason or None,
            "took": seconds(found.seconds),
            "same kind of machine": found.same_machine_kind,
        }
    )
    return Answer(found.to_dict(), [about, "", _compared(found.compared)] if found.compared else about, ok=found.exact)


@command(replay, "decision", examples=["retrodict replay decision decision:01J…"])
@click.argument("ref", metavar="REF")
def replay_answer(session: Session, ref: str) -> Answer:
    """Make a past decision again and compare.

    From the log, the stored code and model, and the tables as of then. Exit code 1 if the result is not exact.
    """
    from retrodict.decisions.replay import replay_decision

    with session.progress("replay"):
        found = replay_decision(session.project, ref)
    data = found.to_dict()
    about = facts(
        {
            "decision": found.decision,
            "verdict": found.verdict,
            "reason": found.reason or None,
            "feature values compared": found.features,
            "tables": [f"{name}@{version}" for name, version in found.versions.items()],
        }
    )
    parts: list[Any] = [about]
    if found.replayed:
        names = dict.fromkeys([*found.logged, *found.replayed])
        parts += [
            "",
            _compared(
                {
                    name: {
                        "equal": found.logged.get(name) == found.replayed.get(name),
                        "recorded": found.logged.get(name),
                        "replayed": found.replayed.get(name),
                    }
                    for name in names
                }
            ),
        ]
    if found.feature_mismatches:
        rows = [
            (each["feature"], _short(each["logged"]), _short(each["replayed"])) for each in found.feature_mismatches
        ]
        parts += ["", table(("feature that differs", "logged", "replayed"), rows)]
    return Answer(data, parts, ok=found.exact)


def _compared(compared: dict[str, dict[str, Any]]) -> Any:
    rows = [
        (name, each["equal"], _short(each["recorded"]), _short(each["replayed"])) for name, each in compared.items()
    ]
    return table(("compared", "equal", "recorded", "replayed"), rows)


def _short(value: Any, most: int = 48) -> str:
    text = value if isinstance(value, str) else to_json(value)
    return text if len(text) <= most else text[: most - 1] + "…"
