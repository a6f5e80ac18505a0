"""``rollout``, ``halt`` and ``release``: bring in a new version step by step, and stop it."""

from __future__ import annotations

from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli
from retrodict.cli._types import model_refs, name_values

rollout = group(cli, "rollout", "Bring in a new version step by step, each judged against as many units of the old.")
expose(rollout, "start", "rollouts.start", to=Parameter("REF", model_refs),
       examples=["retrodict rollout start careful late_arrival@2 --reason 'better on August'"])  # fmt: skip
expose(rollout, "status", "rollouts.status", examples=[
    "retrodict rollout status warn_early --json", "retrodict rollout status warn_early --html careful.html",
])  # fmt: skip
expose(rollout, "run", "rollouts.run", examples=["retrodict rollout run --every 1m", "retrodict rollout run --once"])
expose(rollout, "pause", "rollouts.pause", examples=["retrodict rollout pause warn_early --reason 'storm'"])
expose(rollout, "resume", "rollouts.resume", examples=["retrodict rollout resume warn_early --reason 'storm is over'"])
expose(rollout, "abort", "rollouts.abort", examples=["retrodict rollout abort warn_early --reason 'wrong version'"])
expose(rollout, "promote", "rollouts.promote", examples=["retrodict rollout promote warn_early --reason 'law of May'"])
expose(rollout, "history", "rollouts.history", examples=["retrodict rollout history warn_early"])
expose(
    rollout, "unit", "rollouts.unit",
    values=Parameter("NAME=VALUE", option=True, flag="--value", callback=name_values,
                     more={"multiple": True, "required": True}),
    examples=["retrodict rollout unit warn_early --value tailnum=N337JB --at 2013-09-01T00:00Z"],
)  # fmt: skip
expose(cli, "halt", "policies.halt", examples=["retrodict halt warn_early --reason 'weather feed is wrong'"])
expose(cli, "release", "policies.release", examples=["retrodict release warn_early --reason 'feed is repaired'"])
