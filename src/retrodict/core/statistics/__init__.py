"""Statistics primitives: count profiles, drift, intervals, exact sums.

Import the module you need; the package itself loads nothing.
"""
