"""Saves that go on or were broken off, by the names that trainers and tools give them until they are complete."""

from __future__ import annotations

import re
from collections.abc import Sequence

from smd_analyze.errors import SmdError
from smd_analyze.loading.files import listing
from smd_analyze.records.finding import Finding

UNFINISHED = re.compile(
    r"\.orbax-checkpoint-tmp|\.tmp-\d{9,}$|^tmp-checkpoint-|"  # Orbax, T5X, Hugging Face's Trainer
    r".\.(tmp|temp|part|partial|incomplete|filepart|crdownload|download|aria2|writing)"
    r"([._-]\w{1,12}|\d+|(?=[a-z]*\d)[0-9a-z]{6,8})?$|.~$",
    re.IGNORECASE,
)
NOTES = re.compile(r"\.(json|ya?ml|txt|log|csv|md|lock)\b", re.IGNORECASE)
LONGEST = 1 << 16
WAIT = "Wait until the save is complete, or remove it."


def finished(folder: str, names: Sequence[str], findings: list[Finding]) -> list[str]:
    """The files or folders that are not called like an unfinished save; a finding for each of those that is."""
    for name in names:
        if UNFINISHED.search(name) and not name.startswith(".") and not NOTES.search(name):
            words = "is a save that was not finished: left out"
            findings.append(Finding("unfinished-save", "note", f"{folder}/{name}", words, WAIT))
    return [b for b in names if not UNFINISHED.search(b)]


def is_temporary(folder: str, files: Sequence[str]) -> bool:
    """Levanter writes into metadata.json that a checkpoint is kept only until the next one is complete."""
    if "metadata.json" not in files or listing.is_far(folder):
        return False
    try:
        said = listing.read_json(f"{folder}/metadata.json", LONGEST)
    except (SmdError, OSError):  # whoever reads the checkpoint will say what is wrong
        return False
    return isinstance(said, dict) and said.get("is_temporary") is True
