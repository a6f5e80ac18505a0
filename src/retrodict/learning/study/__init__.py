"""The search for the settings of a recipe.

``search``
    What each trial is worth, in which order, and when enough is known.
``proposals``
    Which trial comes next.
``journal``
    What a kill does not take.
``workers``
    Where the fits run.
``ensembles``
    The best trials, joined.
"""

from retrodict.learning.study.journal import Journal
from retrodict.learning.study.proposals import StudyTrial
from retrodict.learning.study.search import SearchResult, search

__all__ = ["Journal", "SearchResult", "StudyTrial", "search"]
