"""Every estimator of the catalogue passes the contract that ships."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from retrodict.models.estimators import Estimator, get_estimator, list_estimators
from retrodict.testing.estimators import EstimatorContract

FAST: Mapping[str, Mapping[str, Any]] = {
    "aft": {"num_boost_round": 20, "learning_rate": 0.2, "nthread": 1},
    "catboost": {"iterations": 30, "depth": 3, "learning_rate": 0.2, "thread_count": 1},
    "extra_trees": {"n_estimators": 8, "n_jobs": None},
    "gradient_boosting": {"n_estimators": 20},
    "group_rate": {"group": "town"},
    "histogram_boosting": {"max_iter": 15, "learning_rate": 0.2},
    "isolation_forest": {"n_estimators": 20, "n_jobs": None},
    "lightgbm": {"num_iterations": 20, "learning_rate": 0.2, "min_data_in_leaf": 10, "num_threads": 1},
    "mlp": {"hidden_layer_sizes": [8], "max_iter": 60, "learning_rate_init": 0.02},
    "network": {"layers": [16], "epochs": 20, "learning_rate": 0.03, "batch_size": 64},
    "random_forest": {"n_estimators": 8, "n_jobs": None},
    "xgboost": {"num_boost_round": 20, "learning_rate": 0.2, "nthread": 1},
}
NAMES = [
    "aft",
    "catboost",
    "constant",
    "cox",
    "decision_tree",
    "elastic_net",
    "extra_trees",
    "gaussian_process",
    "gradient_boosting",
    "group_rate",
    "histogram_boosting",
    "isolation_forest",
    "knn",
    "lasso",
    "lightgbm",
    "linear",
    "logistic",
    "mlp",
    "naive_bayes",
    "network",
    "one_class_svm",
    "poisson",
    "random_forest",
    "ridge",
    "svm",
    "xgboost",
]


TORCH = importlib.util.find_spec("torch") is not None


class CatalogueContract(EstimatorContract):
    name = ""

    @pytest.fixture
    def registered(self) -> Estimator:
        if self.name == "network" and not TORCH:
            pytest.skip("the extra 'deep' is not installed: make deep")
        return get_estimator(self.name)

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        return FAST.get(self.name, {})


for _name in NAMES:
    _class = f"Test{_name.title().replace('_', '')}"
    globals()[_class] = type(
        _class,
        (CatalogueContract,),
        {
            "name": _name,
            "__module__": __name__,
            "learns": _name not in {"constant", "group_rate", "isolation_forest", "one_class_svm"},
            "most_categories": 500 if _name in {"cox", "svm", "gaussian_process", "one_class_svm"} else 10_000,
        },
    )


def test_the_catalogue_is_what_is_tested():
    """No entry without its contract."""
    assert [entry.name for entry in list_estimators()] == NAMES


REPLAY = """
import json
from dataclasses import replace
from retrodict.models import get_estimator
from retrodict.testing.estimators import make_problem
def fingerprint(name, params, task):
    return get_estimator(name).solve(replace(make_problem(task), params=params)).engine.fingerprint()
print(json.dumps([fingerprint(*case) for case in json.loads(input())]))
"""


@pytest.mark.slow
def test_two_processes_fit_the_same_engine():
    """On as many threads as there are, and on one: a run is replayed by another process."""
    entries = [get_estimator(name) for name in NAMES if name != "network" or TORCH]
    cases = json.dumps(
        [(entry.name, dict(FAST.get(entry.name, {})), task) for entry in entries for task in entry.tasks]
    )
    answers = []
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", REPLAY], input=cases, env=environment, text=True,
                              capture_output=True, check=True)  # fmt: skip
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    differing = [case[::2] for case, one, two in zip(json.loads(cases), *answers, strict=True) if one != two]
    assert differing == []


DOCS = Path(__file__).parents[2] / "docs" / "catalogue.md"


def catalogue_table() -> str:
    """The table of docs/catalogue.md; ``python tests/models/test_catalogue.py`` writes it anew."""
    lines = [
        "| name | tasks | takes itself | weights | row = batch | explains | defaults |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in list_estimators():
        takes = [word for word, able in (("missing", entry.missing), ("categories", entry.categories),
                                         ("`monotone`", entry.monotone)) if able]  # fmt: skip
        defaults = ", ".join(f"{name}={value}" for name, value in entry.defaults.items()) or "none"
        extra = f" (extra `{entry.extra}`)" if entry.extra else ""
        lines.append(
            f"| `{entry.name}`{extra} | {', '.join(entry.tasks)} | {', '.join(takes) or 'numbers'} "
            f"| {'yes' if entry.weights else 'no'} | {'exact' if entry.exact_rows else format(entry.row_error, 'g')} "
            f"| {'exactly' if entry.explains else 'no'} | {defaults} |"
        )
    return "\n".join(lines)


def test_the_page_lists_the_catalogue():
    """Tasks, capabilities and defaults are those of the entries."""
    assert catalogue_table() in DOCS.read_text(encoding="utf-8")


if __name__ == "__main__":
    page = DOCS.read_text(encoding="utf-8")
    before, _, rest = page.partition("| name | tasks |")
    DOCS.write_text(before + catalogue_table() + "\n\n" + rest.partition("\n\n")[2], encoding="utf-8")
