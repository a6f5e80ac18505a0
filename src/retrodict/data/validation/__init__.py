"""Validation: a batch against its table's checks, in one scan; one row in microseconds; three results, never two."""

from retrodict.data.validation.engine import Findings, Validation, check_batch, check_source, validate
from retrodict.data.validation.results import CheckResult
from retrodict.data.validation.rows import row_checker

__all__ = ["CheckResult", "Findings", "Validation", "check_batch", "check_source", "row_checker", "validate"]
