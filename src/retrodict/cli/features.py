"""``features``: what they read, that they are right, their values, the online state that serves them."""

from __future__ import annotations

import logging

import click

from retrodict.cli import _types
from retrodict.cli._command import CommandContext, Parameter, command, expose, group
from retrodict.cli._root import cli
from retrodict.project import Shown
from retrodict.project.features import Features

features = group(cli, "features", "Features: what they read, that they are right, their values, their online state.")

_MANY = {"multiple": True}
_NAMES = Parameter("NAMES", _types.feature_names, option=True, callback=_types.names)
_COUNT = Parameter("N", type=click.IntRange(1))
_MASTER = Parameter("URL")


def _check_destination(context: click.Context, option: click.Parameter, output: str | None) -> str | None:
    """Refuse to compute rows that go nowhere; ``--keep`` stands before ``--output`` and has been read."""
    del option
    if output is None and context.params.get("keep") is None:
        raise click.UsageError("Say where the rows go: --output FILE, --keep NAME, or both.")
    return output


expose(features, "list", "features.list", search=Parameter("TEXT"), examples=[
    "retrodict features list", "retrodict features list --search 'delay 24h'",
    "retrodict features list --owner ops --tag weather",
])  # fmt: skip
expose(features, "show", "features.show", name=Parameter("NAME[.FEATURE]", _types.feature_names), examples=[
    "retrodict features show origin_delays", "retrodict features show origin_delays.count_6h",
])  # fmt: skip


@command(features, "import-feast", project=False, examples=[
    "retrodict features import-feast registry.json", "retrodict features import-feast registry.json > definitions.py",
])  # fmt: skip
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
def import_feast(session: CommandContext, file: str) -> Shown:
    """Write the definitions of a Feast repository, from what `feast registry-dump` printed.

    Entities, views and services go to standard output, what has no counterpart (and why) to standard error.
    """
    definition = Features.import_feast(file)
    for remark in [] if session.as_json else definition.remarks():
        session.note(remark)
    return definition


expose(features, "build", "features.build", examples=["retrodict features build"])
expose(
    features, "stream", "features.stream", log_level=logging.INFO,
    parent=Parameter("PID", type=int), processes=_COUNT,
    partition=Parameter("I", type=click.IntRange(0), more=_MANY), code=Parameter("SHA256"),
    examples=[
        "retrodict features stream", "retrodict features stream --once", "retrodict features stream --processes 4",
        "retrodict features stream --partition 2 --partition 3",
    ],
)  # fmt: skip
expose(features, "plan", "features.plan", examples=["retrodict features plan", "retrodict features plan --json"])
expose(features, "status", "features.status", examples=[
    "retrodict features status", "retrodict features status --json",
])  # fmt: skip
expose(
    features, "verify", "features.verify",
    model=Parameter(complete=_types.model_names), samples=_COUNT, seed=Parameter("N"),
    decisions=Parameter("POLICY", _types.policies),
    examples=[
        "retrodict features verify", "retrodict features verify late_arrival --seed 7",
        "retrodict features verify --decisions warn_early",
    ],
)  # fmt: skip
expose(features, "parity", "features.parity", examples=[
    "retrodict features parity warn_early", "retrodict features parity warn_early --start 2013-09-01T00:00Z",
])  # fmt: skip
expose(
    features, "offline", "features.frame",
    spine=Parameter("FILE|TABLE", option=True, type=str), features=_NAMES, at=Parameter("COLUMN"),
    outcomes=Parameter("NAMES", _types.outcomes, callback=_types.names), keep=Parameter("NAME", _types.frames),
    output=Parameter("FILE", type=click.Path(dir_okay=False), callback=_check_destination), master=_MASTER,
    examples=[
        "retrodict features offline --spine asked.csv --at asked_at --features origin_delays --output frame.parquet",
        "retrodict features offline --spine asked.csv --at asked_at --features delays.count_6h,sky --output frame.csv",
        "retrodict features offline --spine asked.csv --at asked_at --features sky --outcomes late_6h --output set.csv",
        "retrodict features offline --spine flights --at sched_dep --features origin_delays --keep departures",
    ],
)  # fmt: skip
expose(
    features, "extend", "features.extend",
    names=Parameter("[NAME]...", _types.frames, more={"required": False}), master=_MASTER,
    examples=["retrodict features extend", "retrodict features extend departures"],
)  # fmt: skip
expose(features, "frames", "features.frames", name=Parameter("[NAME]", _types.frames), examples=[
    "retrodict features frames", "retrodict features frames departures --json",
])  # fmt: skip
expose(
    features, "online", "features.online",
    keys=Parameter("FILE", option=True), features=_NAMES, at=Parameter(option=True),
    output=Parameter("FILE", type=click.Path(dir_okay=False), more={"required": True}),
    examples=[
        "retrodict features online --keys now.csv --features origin_delays --output values.csv",
        "retrodict features online --keys now.csv --at 2013-09-01T17:50Z --features last_leg --output values.parquet",
    ],
)  # fmt: skip
expose(features, "push", "features.push", source=Parameter(complete=_types.sources),
       events=Parameter("FILE", option=True),
       examples=["retrodict features push flown --events landed.csv"])  # fmt: skip
expose(
    features, "erase", "features.erase",
    entity=Parameter("NAME", _types.entities, option=True), keys=Parameter("FILE", option=True),
    key=Parameter("VALUE", more=_MANY),
    examples=[
        "retrodict features erase --entity customer --keys asked.csv",
        "retrodict features erase --entity customer --keys - --yes --vacuum < asked.csv",
        "retrodict features erase --entity plane --key N500MQ --yes",
    ],
)  # fmt: skip
