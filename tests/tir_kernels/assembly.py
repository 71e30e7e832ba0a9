"""What tests look for in assembly."""

from __future__ import annotations

import re

CONVERSION_CALL = re.compile(r"\s(?:callq?|jmpq?|bl?)\s+(__(?:extend|trunc|gnu|float|fix)\w*)")
"""A call of a function that converts numbers, where the target has no instruction for it."""
