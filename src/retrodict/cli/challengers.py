"""``challenger`` and ``shadow``: what would decide otherwise, and its way to decide."""

from __future__ import annotations

import logging

import click

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

challenger = group(cli, "challenger", "Bring a challenger to decide: evidence, reviews by two people, promotion.")
_NAME = Parameter("NAME")
expose(challenger, "add", "challengers.add", name=_NAME, model=_MODEL, other=_OTHER,
       examples=["retrodict challenger add warn_early august --model late_arrival@2 --reason 'newer'"])  # fmt: skip
expose(challenger, "list", "challengers.list", policy=Parameter("[POLICY]", policies, option=False),
       examples=["retrodict challenger list", "retrodict challenger list warn_early --json"])  # fmt: skip
expose(
    challenger, "report", "challengers.report", name=_NAME, start=Parameter("TIME", flag="--from"),
    end=Parameter("TIME", flag="--to"), by=_BY, jobs=Parameter(type=click.IntRange(1)), html=Parameter("FILE"),
    examples=["retrodict challenger report warn_early august --by carrier --html august.html"],
)  # fmt: skip
expose(challenger, "review", "challengers.review", name=_NAME, examples=[
    "retrodict challenger review warn_early august --role business --reason 'fewer calls'",
    "retrodict challenger review warn_early august --role risk --reason 'report 9f3c, stable by carrier'",
])  # fmt: skip
expose(challenger, "promote", "challengers.promote", name=_NAME,
       examples=["retrodict challenger promote warn_early august --reason 'as reviewed'"])  # fmt: skip
