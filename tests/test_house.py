"""The house rules of CONTRIBUTING.md that can be counted: words, names of modules, errors, sizes.

``python tests/test_house.py [ROOM]`` prints every place that breaks one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "retrodict"
ROOMS = sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists())

STORY = frozenset(
    [
        "found",
        "each",
        "said",
        "told",
        "kept",
        "held",
        "made",
        "wanted",
        "given",
        "shown",
        "gone",
        "asked",
        "chosen",
        "own",
        "whole",
        "known",
        "most",
        "some",
        "there",
        "both",
        "named",
        "judged",
        "taken",
        "lost",
        "grown",
    ]
)
"""Words that read as a story where a noun of the field belongs; names bound in code avoid them."""

ERRORS = frozenset(
    [
        "InputError",
        "NotFoundError",
        "DefinitionError",
        "ConfigurationError",
        "RefusedError",
        "RetryableError",
        "BusyError",
        "IntegrityError",
        "InternalError",
    ]
)

GERUNDS = frozenset({"monitoring", "profiling", "serving", "learning", "testing"})
"""Fields of work that are nouns by now."""


def modules(room: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((SOURCE / room).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def place(path: Path, node: ast.AST) -> str:
    return f"src/retrodict/{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 1)}"


def bindings(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every name that an assignment, a loop, a with or a parameter binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node, node.id
        elif isinstance(node, ast.arg):
            yield node, node.arg


def story_words(room: str) -> list[str]:
    return [f"{place(path, node)} {name}" for path, tree in modules(room) for node, name in bindings(tree)
            if name.strip("_") in STORY]  # fmt: skip


def errors(room: str) -> Iterator[tuple[str, ast.Call]]:
    for path, tree in modules(room):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
                yield place(path, node), node


def known_names(room: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of ``check_known``, whose error has all four parts."""
    for path, tree in modules(room):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check_known":
                yield place(path, node), node


def rule_text(node: ast.expr) -> str | None:
    """Constant text of a rule; None where it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    if isinstance(node, ast.BinOp):
        sides = [rule_text(node.left), rule_text(node.right)]
        return None if None in sides else "".join(map(str, sides))
    return None


def rules_without_must(room: str) -> list[str]:
    texts = [(at, rule_text(call.args[0])) for at, call in errors(room)]
    texts += [(at, rule_text(call.args[2])) for at, call in known_names(room)]
    return [f"{at} {text}" for at, text in texts if text is not None and "must" not in text.split()]


def incomplete_errors(room: str) -> tuple[list[str], int]:
    """Errors without one of the four parts (rule, where, got, remedy), and how many errors there are."""
    short, total = [], len(list(known_names(room)))
    for at, call in errors(room):
        total += 1
        parts = {keyword.arg for keyword in call.keywords}
        if None not in parts and (lacking := {"where", "got", "remedy"} - parts):
            short.append(f"{at} lacks {', '.join(sorted(lacking))}")
    return short, total


def twins(room: str) -> list[str]:
    """Modules of one folder whose names differ by an ending only, and gerunds as names."""
    listed = []
    for folder in sorted({path.parent for path, _ in modules(room)}):
        names = sorted(
            {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
        )
        bare = {name: name.strip("_") for name in names if name != "__init__"}
        listed += [f"{folder.relative_to(SOURCE)}: {name} is a gerund" for name, word in bare.items()
                   if word.endswith("ing") and word not in GERUNDS]  # fmt: skip
        for one, other in combinations(sorted(bare), 2):
            if {bare[one], bare[one] + "s", bare[one] + "es"} & {bare[other], bare[other] + "s", bare[other] + "es"}:
                listed.append(f"{folder.relative_to(SOURCE)}: {one} and {other} are twins")
    return listed


def long_functions(room: str) -> list[str]:
    return [f"{place(path, node)} {node.name}" for path, tree in modules(room) for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or 0) - node.lineno >= 100]  # fmt: skip


def long_files(room: str) -> list[str]:
    return [f"{path.relative_to(SOURCE)}" for path, _ in modules(room)
            if len(path.read_text(encoding="utf-8").splitlines()) > 600]  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_names_are_nouns_of_the_field(room: str) -> None:
    """No story words, no twins by one letter, no gerund as a module."""
    assert story_words(room) + twins(room) == []


@pytest.mark.parametrize("room", ROOMS)
def test_errors_say_what_must_hold(room: str) -> None:
    """Every rule says "must"; nine of ten errors say where, the rule, what was got and what to do."""
    assert rules_without_must(room) == []
    short, total = incomplete_errors(room)
    assert len(short) <= total / 10, short


@pytest.mark.parametrize("room", ROOMS)
def test_functions_and_files_are_short(room: str) -> None:
    """No function of more than 100 lines, no file of more than 600, with docstrings."""
    assert long_functions(room) + long_files(room) == []


SHARED = {"Ledger", "Outcomes", "Run"}
"""Nouns of the face that are named like what they give a face to."""


def test_one_name_means_one_class() -> None:
    """No two rooms have a public class of one name; the face may be called like the thing behind it."""
    homes: dict[str, list[str]] = {}
    for room in ROOMS:
        for path, tree in modules(room):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1 and name not in SHARED} == {}


def test_the_glossary_has_one_line_per_term() -> None:
    """In the order of the alphabet, so that a second meaning has no place to hide."""
    page = (SOURCE.parents[1] / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = [line.split("|")[1].strip().lower() for line in page.splitlines() if line.startswith("| ")][1:]
    assert terms == sorted(set(terms), key=str.casefold)


if __name__ == "__main__":
    for chosen_room in sys.argv[1:] or ROOMS:
        lines, count = incomplete_errors(chosen_room)
        listing = story_words(chosen_room) + twins(chosen_room) + rules_without_must(chosen_room) + lines
        print(*listing, f"{chosen_room}: {len(story_words(chosen_room))} story words, {len(twins(chosen_room))} names "
              f"of modules, {len(rules_without_must(chosen_room))} rules without must, {len(lines)} of {count} errors "
              "incomplete", sep="\n")  # fmt: skip
