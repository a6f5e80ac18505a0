"""Small facts that change together, in transactions."""
