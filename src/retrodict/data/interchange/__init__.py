"""Checks from other tools and for them: suites of Great Expectations, schemas of Pandera."""

from retrodict.data.interchange.great_expectations import from_great_expectations
from retrodict.data.interchange.imported import Exported, Imported, Unmapped
from retrodict.data.interchange.pandera import from_pandera, to_pandera

__all__ = ["Exported", "Imported", "Unmapped", "from_great_expectations", "from_pandera", "to_pandera"]
