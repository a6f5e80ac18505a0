"""What is done with features that serve: their status, and the erasure of subjects from everything they keep."""
