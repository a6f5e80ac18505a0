"""Training frames on more than one machine: the same compiled plan on Spark."""

from retrodict.features.spark.run import training_frame_on_spark

__all__ = ["training_frame_on_spark"]
