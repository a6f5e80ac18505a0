"""``${NAME}`` in the URL of a server, so that a password need not stand in a file."""

from __future__ import annotations

import os
import re
from functools import partial
from urllib.parse import quote

from retrodict.core.errors import ConfigurationError


def with_variables(url: str, where: str) -> str:
    """URL with the variables of the environment that it names, quoted as parts of a URL are.

    ConfigurationError if one is not set; ``where`` is the setting that holds the URL.
    """
    return re.sub(r"\$\{(\w+)\}", partial(_value, where), url)


def _value(where: str, name: re.Match[str]) -> str:
    value = os.environ.get(name[1])
    if value is None:
        raise ConfigurationError(
            "a variable in the URL must be set in the environment",
            where=where,
            got=name[1],
            remedy="Set it, or take ${…} out of the URL",
        )
    return quote(value, safe="")
