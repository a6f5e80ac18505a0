"""Tables by name, each a line of immutable versions."""
