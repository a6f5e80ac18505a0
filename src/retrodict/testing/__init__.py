"""What ships for testing: the contract suites of the stores and generators of features and events."""
