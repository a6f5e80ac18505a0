"""The files that ``retrodict init`` writes: a small project that works as it is."""
