"""The face: everything the product does is a method of :class:`Project` or of one of its namespaces.

Names load on first use: the template's definitions lie below, and reading those costs no face.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.core.clock import parse_time
    from retrodict.core.display import Facts, Grid, Shown, text_of, to_json
    from retrodict.learning.isolation import give_way
    from retrodict.project.project import Project

__all__ = [
    "NAMESPACES",
    "Facts",
    "Grid",
    "Project",
    "Shown",
    "find_namespace",
    "give_way",
    "parse_time",
    "text_of",
    "to_json",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".core.clock": ("parse_time",),
        ".core.display": ("Facts", "Grid", "Shown", "text_of", "to_json"),
        ".learning.isolation": ("give_way",),
        "project": ("Project",),
    },
)

NAMESPACES = {
    "api_keys": "ApiKeys",
    "challengers": "Challengers",
    "data": "Data",
    "data.quarantine": "Quarantine",
    "decisions": "Decisions",
    "experiments": "Experiments",
    "features": "Features",
    "ledger": "Ledger",
    "models": "Models",
    "outcomes": "Outcomes",
    "pipelines": "Pipelines",
    "policies": "Policies",
    "rollouts": "Rollouts",
    "runs": "Runs",
}


def find_namespace(name: str) -> type:
    """Class of a namespace of the project, ``""`` for the project itself: for skins that read signatures."""
    if not name:
        from retrodict.project.project import Project

        return Project
    namespace_class: type = getattr(import_module(f"{__name__}.{name.partition('.')[0]}"), NAMESPACES[name])
    return namespace_class
