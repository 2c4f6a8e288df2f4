"""Words that the findings of several rooms share."""

from __future__ import annotations

from collections.abc import Iterable

from smd_analyze.records.finding import Finding


def some(names: Iterable[str], most: int = 3) -> str:
    """A few names, and how many more."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def unreadable(path: str, problem: Exception, remedy: str = "Its settings are not used.") -> Finding:
    """A file that is damaged or cannot be opened: the rest goes on without it."""
    return Finding("unreadable-file", "warning", path, str(problem).removeprefix(f"{path}: "), remedy)
