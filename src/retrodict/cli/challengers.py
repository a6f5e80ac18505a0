"""``shadow``: challengers beside real traffic."""

from __future__ import annotations

import logging

from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli
from retrodict.cli._types import model_refs, policies

shadow = group(cli, "shadow", "Let challengers decide real requests too, after the answer, and see what differs.")
_MODEL, _OTHER = Parameter("REF", model_refs), Parameter("POLICY", policies, flag="--policy")
_BY = Parameter("NAME", option=True, more={"multiple": True})

expose(shadow, "start", "challengers.start_shadow", model=_MODEL, other=_OTHER, examples=[
    "retrodict shadow start warn_early --model late_arrival@2 --reason 'trained on August'",
    "retrodict shadow start warn_early --policy warn_late --name late --reason 'fewer warnings?'",
])  # fmt: skip
expose(shadow, "stop", "challengers.stop_shadow",
       examples=["retrodict shadow stop warn_early late --reason 'seen enough'"])  # fmt: skip
expose(shadow, "report", "challengers.shadow_report", by=_BY, html=Parameter("FILE"), examples=[
    "retrodict shadow report warn_early",
    "retrodict shadow report warn_early --name late --by carrier --html late.html",
])  # fmt: skip
expose(shadow, "run", "challengers.run_shadows", log_level=logging.INFO,
       examples=["retrodict shadow run", "retrodict shadow run --once"])  # fmt: skip
