"""Online state: written from streams and history, read for one request in microseconds."""

from retrodict.features.online.features import FeatureRow, OnlineFeatures

__all__ = ["FeatureRow", "OnlineFeatures"]
