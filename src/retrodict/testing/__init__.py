"""What ships for testing: the contract suites of the stores and the naive oracle of the features."""
