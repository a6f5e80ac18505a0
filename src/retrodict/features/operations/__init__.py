"""What is done with features that serve: status, events pushed, values read, subjects erased from all they keep."""
