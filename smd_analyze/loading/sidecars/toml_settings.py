"""TOML files of settings."""

from __future__ import annotations

import re
import tomllib

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file

KEY = re.compile(r"""[\w"'-]++(?:[ \t]*+\.[ \t]*+[\w"'-]++)*+""")
DEEPEST = 100  # tomllib needs time and memory in the square of a key's levels


def matches(name: str) -> bool:
    """Any .toml but those of packages and tools."""
    return name.endswith(".toml") and name.rpartition("/")[2] not in ("pyproject.toml", "Cargo.toml", "ruff.toml")


def read(path: str) -> Sidecar:
    """The file's tables."""
    text = text_of_file(path)
    if any(key.group().count(".") > DEEPEST for key in KEY.finditer(text)):
        raise DamagedFile(f"{path}: not sound TOML: a key of more than {DEEPEST} levels")
    try:
        return Sidecar(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise DamagedFile(f"{path}: not sound TOML: {problem}") from None


READER = Reader("TOML", matches, read, lambda name: "config" in name)
