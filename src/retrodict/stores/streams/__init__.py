"""Append-only logs of events in and decisions out."""
