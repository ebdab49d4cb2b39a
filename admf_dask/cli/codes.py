"""Exit codes of the commands."""

from __future__ import annotations

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
