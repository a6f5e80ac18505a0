"""The files that ``retrodict init`` writes."""
