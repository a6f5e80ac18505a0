"""The key of a step changes with everything its code is made of, and with nothing else."""

from __future__ import annotations

import pytest
from tests.learning.pipeline.project import FIVE, write

from retrodict.learning.pipeline import keys
from retrodict.learning.pipeline.code import code_of
from retrodict.learning.pipeline.definitions import PipelineStep
from retrodict.workspace import capture_code, definitions_of

MAIN = """
import json
import numpy as np
import shapes
from lib.text import clean as tidy
from lib import numbers as numeric
from . import relative

LIMITS = {"low": 1}
LIMITS["high"] = 9
UNUSED = 7

class Base:
    def low(self):
        return LIMITS["low"]

class Rule(Base):
    def check(self, n):
        return self.low() < n < OTHER

OTHER = 5

def unrelated():
    return UNUSED

def helper(n, rule=Rule()):
    return rule.check(n)

def rows(frame, unused=3):
    OTHERWISE = 1
    unrelated = 4
    def inner(x):
        return helper(x)
    return [tidy(inner(x)) for x in frame] + [numeric.one(), shapes.area(), json.dumps(OTHERWISE)]
"""
FILES = {
    "flows/defs.py": MAIN,
    "flows/shapes.py": "SIDE = 2\ndef area():\n    return SIDE * SIDE\n",
    "flows/lib/__init__.py": "",
    "flows/lib/text.py": "from .deep import low\ndef clean(t):\n    return low(t)\ndef spare():\n    return 0\n",
    "flows/lib/deep.py": "def low(t):\n    return str(t).lower()\n",
    "flows/lib/numbers.py": "def one():\n    return 1\n",
    "flows/relative.py": "X = 1\n",
    "flows/stranger.py": "Y = 1\n",
}


def key(files) -> dict[str, str]:
    return code_of(files, "flows", "flows/defs.py", "rows")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flows/defs.py", "return [tidy", "return [3] + [tidy"),
        ("flows/defs.py", "return rule.check(n)", "return not rule.check(n)"),
        ("flows/defs.py", "self.low() < n", "self.low() <= n"),
        ("flows/defs.py", '{"low": 1}', '{"low": 2}'),
        ("flows/defs.py", 'LIMITS["high"] = 9', 'LIMITS["high"] = 8'),
        ("flows/defs.py", "OTHER = 5", "OTHER = 6"),
        ("flows/defs.py", "rule=Rule()", "rule=None"),
        ("flows/shapes.py", "SIDE = 2", "SIDE = 3"),
        ("flows/lib/text.py", "return low(t)", "return low(t) + '.'"),
        ("flows/lib/deep.py", "lower", "upper"),
        ("flows/lib/numbers.py", "return 1", "return 2"),
        ("flows/lib/__init__.py", "", "import os"),
    ],
)
def test_what_the_step_calls_changes_its_key(file, old, new) -> None:
    """A helper, a helper's helper, a base class, a constant and what changes it, a default, a module, a package."""
    assert old in FILES[file]
    assert key({**FILES, file: FILES[file].replace(old, new, 1)}) != key(FILES)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flows/defs.py", "UNUSED = 7", "UNUSED = 8"),
        ("flows/defs.py", "OTHER = 5", "OTHER = 5  # five"),
        ("flows/defs.py", "def unrelated():\n    return UNUSED", "def unrelated():\n    return 1"),
        ("flows/defs.py", "unused=3", "unused=4"),  # a parameter, which is in the key as such
        ("flows/lib/text.py", "return 0", "return 1"),
        ("flows/stranger.py", "Y = 1", "Y = 2"),
        ("flows/relative.py", "X = 1", "X = 2"),
        ("flows/defs.py", "    OTHERWISE = 1\n", "\n    OTHERWISE = (1)\n"),
    ],
)
def test_what_it_does_not_call_changes_nothing(file, old, new) -> None:
    """Comments, other functions, names that are its own variables, modules it does not use."""
    assert old in FILES[file]
    assert key({**FILES, file: FILES[file].replace(old, new, 1)}) == key(FILES)


def test_the_decorator_of_a_step_is_no_code_of_it() -> None:
    """More retries change no result; another decorator may."""
    text = "from retrodict import step\n{}\ndef rows():\n    return 1\ndef other():\n    return 2\n"
    keys = [
        code_of({"d.py": text.format(line)}, "", "d.py", "rows")
        for line in ("@step", "@step(retries=3)", "@step()\n@other")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_circle_of_helpers_ends() -> None:
    """Functions that call each other, and modules that import each other."""
    files = {
        "a.py": "import b\ndef f(): return g()\ndef g(): return f() + b.h()\n",
        "b.py": "import a\ndef h(): return a.f()\n",
    }
    assert set(code_of(files, "", "a.py", "f")) >= {"a.py:f", "a.py:g", "a.py:b", "b.py:h"}


def test_another_environment_is_another_key_and_says_which_package(tmp_path, monkeypatch) -> None:
    """Versions of packages and of Python; the threads and modules of this process are none of it."""
    facts = {"packages": {"numpy": "2.1", "polars": "2.0"}, "python": "3.11.7", "platform": "Linux", "retrodict": "a",
             "modules": {}, "threads": {}}  # fmt: skip
    with write(tmp_path, FIVE) as project:
        workspace = project.workspace
        code = capture_code(workspace)

        def parts(**changes):
            monkeypatch.setattr(keys, "describe_environment", lambda **_: {**facts, **changes})
            return keys.KeyMaker(workspace, code).parts(project.definitions.get(PipelineStep, "aside"), {}, "", {})

        before = parts()
        assert before == parts(modules={"x": {}}, threads={"OMP_NUM_THREADS": "1"})
        changed = parts(packages={"numpy": "2.2", "polars": "2.0"}, python="3.12.1")
        sentences = keys.differences(before, changed, workspace.objects)
        assert sentences == ["environment changed: numpy 2.1 → 2.2, python 3.11.7 → 3.12.1"]


HELPERS = """
import contextlib, functools

def logged():
    def wrap(f):
        @functools.wraps(f)
        def inner():
            return f()
        return inner
    return wrap

@contextlib.contextmanager
def ctx():
    yield
"""
WRAPPED = """
from helpers import ctx, logged
from retrodict import Pipeline, step

def helper():
    return 1

@step
@{}()
def work():
    return helper()

spare = 1
p = Pipeline("p", [work])
"""


@pytest.mark.parametrize("wrapper", ["logged", "ctx"])
def test_what_a_decorator_wraps_is_code_of_the_step(tmp_path, wrapper) -> None:
    """The function and its helpers, whichever module the wrapper is of; an edit elsewhere changes nothing."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    text = WRAPPED.format(wrapper)

    def code(body: str) -> dict[str, str]:
        with write(tmp_path, body) as project:
            captured = capture_code(project.workspace)
            part = definitions_of(project.workspace, captured).get(PipelineStep, "work")
            return keys.KeyMaker(project.workspace, captured).parts(part, {}, "", {})["code"]

    before = code(text)
    assert code(text.replace("spare = 1", "spare = 2")) == before
    changed = code(text.replace("return 1", "return 2"))
    assert [name for name in changed if changed[name] != before[name]] == ["definitions.py:helper"]
    assert code(text.replace("return helper()", "return -helper()")) != before


def test_a_tuple_is_another_default_than_a_list(tmp_path) -> None:
    """A step is given the one that is written."""
    with write(tmp_path, FIVE) as project:
        maker = keys.KeyMaker(project.workspace, capture_code(project.workspace))
        part = project.definitions.get(PipelineStep, "numbers")
        parts = [maker.parts(part.using(count=value), {}, "", {})["params"] for value in ((1, 2), [1, 2])]
        assert parts[0] != parts[1]


@pytest.mark.parametrize(
    "text",
    [
        "LIMIT = {}\ndef _setup(): LIMIT['x'] = VALUE\n_setup()\ndef work(): return LIMIT['x']\n",
        "RULES = []\ndef rule(f): RULES.append(f)\n@rule\ndef first(): return VALUE\ndef work(): return RULES[0]()\n",
        "LIMIT = {1: 1, 2: 2}\ndel LIMIT[VALUE]\ndef work(): return LIMIT\n",
        "LIMIT = []\nfor n in [VALUE]:\n    LIMIT.append(n)\ndef work(): return LIMIT\n",
    ],
)
def test_a_module_that_changes_its_objects_counts_as_a_whole(text) -> None:
    """By a call, by a decorator, by a statement; also where the step imports it."""
    one, two = ({"d.py": text.replace("VALUE", value)} for value in "12")
    assert code_of(one, "", "d.py", "work") != code_of(two, "", "d.py", "work")
    main = {"main.py": "from d import work\ndef rows(): return work()\n"}
    assert code_of({**one, **main}, "", "main.py", "rows") != code_of({**two, **main}, "", "main.py", "rows")
