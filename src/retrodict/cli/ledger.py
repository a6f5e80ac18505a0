"""``lineage``, ``replay`` and ``audit``: where a thing came from, again, and whether anybody touched it since."""

from __future__ import annotations

import click

from retrodict.cli import _types
from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli

replay = group(cli, "replay", "Execute a training, a decision or a window of decisions again, and compare.")
audit = group(cli, "audit", "Verify the ledger, read it, sign it, seal the decision log, prove a decision.")

_OBJECT = Parameter("REF", _types.objects)

expose(cli, "lineage", "lineage", ref=_OBJECT, examples=[
    "retrodict lineage decision:01J…", "retrodict lineage model:late_arrival@1", "retrodict lineage dataset:flights@0",
    "retrodict lineage run:01J… --format mermaid", "retrodict lineage model:late_arrival@1 --format openlineage",
])  # fmt: skip
expose(replay, "run", "replay_run", ref=Parameter("REF", _types.run_refs), examples=["retrodict replay run run:01J…"])
expose(replay, "decision", "replay_decision", ref=Parameter("REF"),
       examples=["retrodict replay decision decision:01J…"])  # fmt: skip
expose(
    replay, "window", "challengers.replay", start=Parameter("TIME", flag="--from"), end=Parameter("TIME", flag="--to"),
    model=Parameter("REF", _types.model_refs), other=Parameter("POLICY", _types.policies, flag="--policy"),
    by=Parameter("NAME", option=True, more={"multiple": True}),
    jobs=Parameter(type=click.IntRange(1)), html=Parameter("FILE"),
    examples=["retrodict replay window warn_early --from 2013-09-01T00:00Z --model late_arrival@2",
              "retrodict replay window warn_early --policy warn_late --by carrier --html window.html"],
)  # fmt: skip
expose(audit, "verify", "ledger.verify", examples=[
    "retrodict audit verify", "retrodict audit verify --checkpoints /mnt/witness/checkpoints.jsonl --public-key 3f…",
])  # fmt: skip
expose(audit, "log", "ledger.log",
       examples=["retrodict audit log", "retrodict audit log --object model:late_arrival@1",
                 "retrodict audit log --file scores.parquet"])  # fmt: skip
expose(audit, "seal", "ledger.seal", examples=["retrodict audit seal"])
expose(audit, "accept", "ledger.accept", examples=["retrodict audit accept --reason 'restored the backup of Monday'"])
expose(audit, "adopt", "ledger.adopt",
       examples=["retrodict audit adopt flights --reason 'written by the nightly job on Spark'"])  # fmt: skip
expose(audit, "renew-key", "ledger.renew_key", examples=["retrodict audit renew-key --reason 'yearly'"])
expose(audit, "proof", "ledger.proof", ref=Parameter("[REF]"), examples=[
    "retrodict audit proof decision:01J… --output proof.json", "retrodict audit proof entry:12",
    "retrodict audit proof --since 12",
])  # fmt: skip
expose(audit, "check", "ledger.check", proof=Parameter("PROOF"),
       examples=["retrodict audit check proof.json --public-key 3f…"])  # fmt: skip
