"""What reading costs: runs, versions and deployments are looked at without the libraries that train or compute."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from retrodict.registry import register
from retrodict.workspace import Workspace

TRAINING = {"lightgbm", "sklearn", "scipy", "matplotlib", "pandas"}
COMPUTING = TRAINING | {"numpy", "pyarrow", "duckdb", "deltalake"}


def loaded_after(code: str) -> set[str]:
    """Libraries that a fresh process has loaded after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_runs_and_versions_are_read_without_what_computes(tmp_path):
    """A project with a registered version: its runs, versions and revisions load no NumPy, Arrow or LightGBM."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "definitions.py").write_text("")
    workspace = Workspace(tmp_path, actor="ann")
    register(workspace, "late", run="01J0", artifact="0" * 64, code="0" * 64, gates=[], metrics={"auc": 0.8})
    code = f"""
from retrodict.learning import list_runs
from retrodict.registry import current, get_version
from retrodict.workspace import Workspace
workspace = Workspace({str(tmp_path)!r}, actor="ann")
assert (list_runs(workspace), current(workspace), get_version(workspace, "late").metrics) == ([], {{}}, {{"auc": 0.8}})
"""
    assert loaded_after(code) & COMPUTING == set()


@pytest.mark.parametrize(
    "module",
    ["models.artifact", "models.problem", "registry.feature_sets", "evaluation.gates", "evaluation.metrics",
     "learning.execution", "learning.replay", "rollout.changes", "decisions.loader"],
)  # fmt: skip
def test_what_trains_is_loaded_by_training_only(module):
    """Deploying, planning and serving import neither LightGBM nor scikit-learn: an artifact loads its own engine."""
    assert loaded_after(f"import retrodict.{module}") & TRAINING == set()
