"""A function of a step that calls what is away: tried again inside the step, which is executed once."""

from retrodict import Project

DEFINITIONS = """
from pathlib import Path
import retrodict
from retrodict import Pipeline, step

CALLS = Path("FOLDER") / "calls"


@step
@retrodict.retry(ConnectionError, idempotent=True, base="1ms")
@retrodict.breaker(ConnectionError, failures=9)
def rates(day: str = "monday"):
    CALLS.write_text(CALLS.read_text() + "x")
    if len(CALLS.read_text()) < 3:
        raise ConnectionError
    return {"day": day}


nightly = Pipeline("nightly", [rates])
"""


def test_a_step_may_be_made_of_a_function_that_is_retried_and_guarded(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS.replace("FOLDER", str(tmp_path)))
    (tmp_path / "calls").write_text("")
    project = Project(tmp_path, actor="ana")
    assert [(step.step, step.status) for step in project.pipelines.run("nightly").steps] == [("rates", "finished")]
    assert (tmp_path / "calls").read_text() == "xxx"
    assert [step.status for step in project.pipelines.run("nightly").steps] == ["skipped"]
