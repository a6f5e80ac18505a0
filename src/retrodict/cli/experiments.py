"""``experiment``: compare variants on the units that a policy decides on."""

from __future__ import annotations

from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli
from retrodict.cli._types import name_values

experiment = group(cli, "experiment", "Compare variants on the units that a policy decides on.")
expose(experiment, "plan", "experiments.plan", examples=[
    "retrodict experiment plan letter_tone", "retrodict experiment plan letter_tone --baseline 0.1 --units-per-day 500",
])  # fmt: skip
expose(experiment, "start", "experiments.start", examples=[
    "retrodict experiment start letter_tone --reason 'ticket 71'",
    "retrodict experiment start letter_tone --share 0.05 --reason 'a twentieth first'",
    "retrodict experiment start letter_tone --weight control=50 --weight soft=50 --reason 'all went well'",
], weights=Parameter("NAME=VALUE", option=True, flag="--weight", callback=name_values,
                     more={"multiple": True}))  # fmt: skip
expose(experiment, "report", "experiments.report", examples=[
    "retrodict experiment report letter_tone", "retrodict experiment report letter_tone --html letters.html",
])  # fmt: skip
expose(experiment, "value", "experiments.value", examples=[
    "retrodict experiment value letter_tone --give soft=\"segment = 'new'\" --give control=otherwise",
], give=Parameter("VARIANT=CONDITION", option=True, flag="--give", callback=name_values,
                  more={"multiple": True, "required": True}))  # fmt: skip
expose(experiment, "stop", "experiments.stop",
       examples=["retrodict experiment stop letter_tone --reason 'planned units are in'"])  # fmt: skip
expose(experiment, "decide", "experiments.decide",
       examples=["retrodict experiment decide letter_tone soft --reason 'better, no complaint'"])  # fmt: skip
expose(experiment, "list", "experiments.list", examples=["retrodict experiment list --json"])
