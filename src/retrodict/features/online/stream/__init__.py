"""Feeding online state from streams and tables."""
