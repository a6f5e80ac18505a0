"""The page of the stores: every snippet runs, in order, and the tables name what exists."""

import re
from pathlib import Path

from retrodict import testing

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"


def test_every_snippet_of_the_page_runs(tmp_path, monkeypatch):
    """Later snippets go on with what earlier ones made, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names = {}
    for number, snippet in enumerate(snippets, start=1):
        exec(compile(snippet, f"{PAGE.name}, snippet {number}", "exec"), names)
    names["records"].close()
    assert len(snippets) == 7


def test_the_page_names_every_contract_suite():
    """A suite that ships is a suite people are told of."""
    suites = {path.stem for path in Path(testing.__file__).parent.glob("contracts_*.py")}
    assert suites == set(re.findall(r"`(contracts_\w+)\.", PAGE.read_text(encoding="utf-8")))
