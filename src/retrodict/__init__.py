"""Retrodict: predict forward, retrodict back."""

__version__ = "0.1.0"
