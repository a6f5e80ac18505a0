"""One small SQL subset for every condition in a definitions module: parsed once, executed as SQL and on single rows."""

from retrodict.core.expressions._reach import can_hold, check_reach, compared_texts
from retrodict.core.expressions.expression import Expression, parse

__all__ = ["Expression", "can_hold", "check_reach", "compared_texts", "parse"]
