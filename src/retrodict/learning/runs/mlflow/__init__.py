"""MLflow in and out (extra ``mlflow``): a tracking store for its clients, runs and models for its servers.

``mlflow.set_tracking_uri("retrodict:///path/to/project")`` is enough: MLflow finds the store by its entry point.
"""
