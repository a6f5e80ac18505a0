"""The command line: thin commands over the rooms' functions, all made by one mechanism (``_command.py``)."""
