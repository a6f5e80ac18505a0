"""The newest value per key, read in microseconds."""
