"""Reading features from online state."""
