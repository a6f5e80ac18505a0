"""Targets name their outputs, and refuse what cannot be one."""

import pytest

from retrodict.core.errors import DefinitionError
from retrodict.core.tasks import Target


@pytest.mark.parametrize(
    ("target", "outputs"),
    [
        (Target(), ("score",)),
        (Target("regression"), ("value",)),
        (Target("count"), ("value",)),
        (Target("ranking"), ("score",)),
        (Target("multiclass", classes=("a", "b c")), ('p["a"]', 'p["b c"]')),
        (Target("multiclass", classes=(1, 2)), ('p["1"]', 'p["2"]')),
        (Target("quantile", quantiles=(0.05, 0.5, 0.999)), ("q5", "q50", "q99_9")),
    ],
)
def test_outputs_are_named_by_the_task(target, outputs):
    assert target.outputs == outputs
    assert target.columns == len(outputs)


@pytest.mark.parametrize("target", [Target(), Target("multiclass", classes=("a", "b"), ordered=True),
                                    Target("quantile", quantiles=(0.25, 0.75))])  # fmt: skip
def test_the_plain_form_reads_back(target):
    assert Target.from_dict(target.to_dict()) == target


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "binry"}, "Did you mean the task 'binary'"),
        ({"task": "multiclass"}, "several classes must have names"),
        ({"task": "binary", "classes": ("a",)}, "no other task has them"),
        ({"task": "multiclass", "classes": ("a", "a")}, "each another one"),
        ({"task": "quantile"}, "quantiles must ascend"),
        ({"task": "quantile", "quantiles": (0.5, 0.1)}, "quantiles must ascend"),
        ({"task": "quantile", "quantiles": (0.0, 0.5)}, "quantiles must ascend"),
        ({"task": "regression", "quantiles": (0.5,)}, "no other task has them"),
    ],
)
def test_what_cannot_be_a_target_is_refused(arguments, message):
    with pytest.raises(DefinitionError, match=message):
        Target(**arguments)
