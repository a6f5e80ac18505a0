"""Engines, one file for each way to score: the class that turns a row of float64 into a score, and how it is fitted."""
