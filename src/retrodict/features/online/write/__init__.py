"""Writing events into online state."""
