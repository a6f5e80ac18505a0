"""``python -m retrodict``: the same as the command ``retrodict``."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the present folder, most likely a project's: its csv.py is no module of the standard library

from retrodict.cli.main import main

if __name__ == "__main__":
    main()
