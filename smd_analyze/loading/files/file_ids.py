"""Which file it was: what is remembered of a file when it is listed, to notice that it changed."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from smd_analyze.errors import DamagedFile


class FileId(NamedTuple):
    """A file as it was when it was listed: `size` in bytes, `mtime_ns` its modification time (0 if that is not told).

    `version` is what a server says of a file's content (an ETag, a generation, a hash); "" for local files.
    """

    path: str
    size: int
    mtime_ns: int
    version: str = ""

    @property
    def stamp(self) -> int:
        """The modification time in ns; for a file with a version, a number made of that."""
        if not self.version:
            return self.mtime_ns
        return int.from_bytes(sha256(f"{self.version} {self.size}".encode()).digest()[:7], "big")


def changed(path: str) -> DamagedFile:
    """The error for a file that was written to since it was listed."""
    return DamagedFile(f"{path}: changed while it was being read; wait until it is written, then start again")
