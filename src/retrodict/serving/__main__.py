"""``python -m retrodict.serving SPEC``: one worker of a server; only its supervisor starts it."""

from retrodict.serving.worker import main

main()
