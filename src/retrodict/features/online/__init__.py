"""Online state: written from streams and history, read for one request in microseconds."""

from retrodict.features.online.features import OnlineFeatures
from retrodict.features.online.rows import FeatureRow

__all__ = ["FeatureRow", "OnlineFeatures"]
