"""``train``, ``runs`` and ``models``: trainings, and the judgement of somebody else than their author."""

from __future__ import annotations

from retrodict.cli import _types
from retrodict.cli._command import Parameter, expose, group
from retrodict.cli._root import cli

runs = group(cli, "runs", "Look at trainings: parameters, data, metrics.")
models = group(cli, "models", "Look at model versions, approve or reject them.")

_RUN = Parameter("REF", _types.run_refs)
_RUNS = Parameter("REF...", _types.run_refs)
_VERSION = Parameter("REF", _types.model_refs)

expose(cli, "train", "train", examples=[
    "retrodict train late_arrival",
    "retrodict train late_arrival --train 2013-01-01/2013-08-01 --validate 14d --test 14d",
    "retrodict train late_arrival --again",
    "retrodict train late_arrival --resume run:01J…",
    "retrodict train late_arrival --start-from late_arrival@3",
])  # fmt: skip
expose(cli, "tune", "tune", examples=[
    "retrodict tune late_arrival --trials 60 --timeout 15m", "retrodict tune late_arrival --metric auc --jobs 2",
])  # fmt: skip
expose(
    runs, "list", "runs.list", examples=["retrodict runs list", "retrodict runs list --model late_arrival --limit 20"]
)
expose(cli, "automl", "automl", hidden=["folder", "actor"],
       supply=lambda session: {"folder": session.folder, "actor": session.actor},
       source=Parameter("FILE|TABLE"), examples=[
    "retrodict automl wine.csv --target quality --budget 2m",
    "retrodict automl loans --target bad --exclude note,agent",
    "retrodict automl trips.parquet --target minutes --time started --known-at ended",
])  # fmt: skip
expose(runs, "search", "runs.search", where=Parameter("[CONDITION]", more={"required": False}), examples=[
    "retrodict runs search \"metrics.auc > 0.7 and params.estimator = 'lightgbm' and tags.team = 'risk'\"",
    "retrodict runs search \"status = 'failed'\" --order 'started desc' --json",
    "retrodict runs search --order metrics.auc --limit 10",
])  # fmt: skip
expose(runs, "best", "runs.best", examples=[
    "retrodict runs best auc --model late_arrival", "retrodict runs best rmse --where \"tags.team = 'risk'\"",
])  # fmt: skip
expose(runs, "show", "runs.get", ref=_RUN, examples=["retrodict runs show run:01J…"])
expose(runs, "compare", "runs.compare", refs=_RUNS, examples=[
    "retrodict runs compare run:01J… run:01K…", "retrodict runs compare late_arrival@2 late_arrival@4",
])  # fmt: skip
expose(runs, "environment", "runs.environment", ref=_RUN, examples=[
    "retrodict runs environment run:01J… --output requirements.txt",
    "retrodict runs environment run:01J… --format containerfile --output Containerfile",
])  # fmt: skip
expose(runs, "export", "runs.export", path=Parameter("FILE", option=False), examples=[
    "retrodict runs export runs.csv --model late_arrival",
    "retrodict runs export runs.parquet --where \"tags.team = 'risk'\"",
])  # fmt: skip
expose(runs, "push", "runs.push", ref=_RUN, examples=["retrodict runs push run:01J… http://localhost:5000"])
expose(runs, "prune", "runs.prune", dry_run=Parameter(more={"default": True}, flag="--dry-run/--no-dry-run"), examples=[
    "retrodict runs prune --older 90d", "retrodict runs prune --older 30d --where \"status = 'failed'\"",
    "retrodict runs prune --older 90d --no-dry-run --reason 'disk'",
])  # fmt: skip
expose(runs, "tag", "runs.tag", ref=_RUN, tags=Parameter("[NAME=VALUE...]", more={"required": False}), examples=[
    "retrodict runs tag run:01J… team=risk stage=", "retrodict runs tag run:01J… --note 'repeated on the March rows'",
])  # fmt: skip

expose(cli, "score", "models.score_files", ref=_VERSION, columns=Parameter("NAMES", callback=_types.names),
       partition=Parameter("NAMES", callback=_types.names), examples=[
    "retrodict score late_arrival --input september.csv --output scores.csv",
    "retrodict score late_arrival@3 --input 'flights/*.parquet' --output scores --columns id,carrier --jobs 2",
    "retrodict score late_arrival --input flights --output scores.parquet",
    "retrodict score late_arrival --input lake/flights --output delta:lake/scores --partition day",
])  # fmt: skip

expose(models, "list", "models.list", examples=["retrodict models list", "retrodict models list late_arrival"])
expose(models, "show", "models.get", ref=_VERSION, examples=["retrodict models show late_arrival@1"])
expose(models, "card", "models.card", ref=_VERSION, examples=[
    "retrodict models card late_arrival@1", "retrodict models card late_arrival@1 --output card.html",
])  # fmt: skip
expose(models, "export", "models.export", ref=_VERSION, folder=Parameter("FOLDER"), examples=[
    "retrodict models export late_arrival@1 late_arrival_mlflow",
    "retrodict models export late_arrival@1 late_arrival --format plain && python late_arrival/score.py --check",
])  # fmt: skip
expose(models, "estimators", "models.estimators", examples=[
    "retrodict models estimators", "retrodict models estimators --task quantile",
])  # fmt: skip
expose(models, "history", "models.history", examples=[
    "retrodict models history late_arrival", "retrodict models history late_arrival --metric brier --svg history.svg",
])  # fmt: skip
expose(models, "score-history", "models.score_history", ref=_VERSION, examples=[
    "retrodict models score-history late_arrival", "retrodict models score-history late_arrival@3 --last 30",
])  # fmt: skip
expose(models, "leaderboard", "models.leaderboard", examples=[
    "retrodict models leaderboard late_arrival", "retrodict models leaderboard late_arrival --metric brier",
])  # fmt: skip
expose(models, "importance", "models.importance", ref=_VERSION, examples=["retrodict models importance late_arrival@1"])
expose(models, "compare", "models.compare", estimators=Parameter("NAMES", callback=_types.names), examples=[
    "retrodict models compare late_arrival", "retrodict models compare late_arrival --estimators lightgbm,logistic",
])  # fmt: skip
expose(models, "optimise", "models.optimise", ref=_VERSION, how=Parameter("WAYS", callback=_types.names), examples=[
    "retrodict models optimise late_arrival@1", "retrodict models optimise late_arrival --how prune --max-loss 0.001",
])  # fmt: skip
expose(models, "approve", "models.approve", ref=_VERSION,
       examples=["retrodict models approve late_arrival@1 --reason 'pilot' --actor reviewer"])  # fmt: skip
expose(models, "reject", "models.reject", ref=_VERSION, examples=[
    "retrodict models reject late_arrival@2 --reason 'unfair to one carrier' --actor reviewer",
])  # fmt: skip
