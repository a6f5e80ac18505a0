"""The project of the demo, copied into the folder where it is lived."""
