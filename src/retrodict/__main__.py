"""``python -m retrodict``: the same as the command ``retrodict``."""

from retrodict.cli.main import main

if __name__ == "__main__":
    main()
