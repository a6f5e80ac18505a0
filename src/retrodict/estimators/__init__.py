"""Scikit-learn-compatible parts that know nothing of the platform; the first ones come with missing data."""
