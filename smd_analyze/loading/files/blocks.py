"""Reading small values of a large file: in blocks, so that listing what is in it costs few reads and little memory."""

from __future__ import annotations

import struct
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import Source

BLOCK = 1 << 16  # bytes read at a time
LONGEST_TEXT = 1 << 24


class Blocks:
    """The bytes of an open file; the last block stays in memory."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.first = 0
        self.block = source.head

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`; DamagedFile if they leave the file."""
        if start < self.first or stop > self.first + len(self.block):
            self.block = self.source.read(start, max(stop, min(start + BLOCK, self.source.size)))
            self.first = start
        return self.block[start - self.first : stop - self.first]


class Cursor(Blocks):
    """A position in a file of little-endian numbers and texts."""

    def __init__(self, source: Source, at: int) -> None:
        super().__init__(source)
        self.at = at

    def numbers(self, form: str) -> tuple[Any, ...]:
        """The next numbers, in struct's letters, without gaps."""
        start = self.at
        self.at += struct.calcsize("<" + form)
        return struct.unpack("<" + form, self.read(start, self.at))

    def count(self) -> int:
        """How many entries follow; each needs eight bytes at least."""
        count = self.numbers("Q")[0]
        if count * 8 > self.source.size:
            raise DamagedFile(f"{self.source.path}: claims {count} entries in {self.source.size} bytes: damaged?")
        return count

    def text(self) -> str:
        """A text with its length, of eight bytes, before it."""
        length = self.numbers("Q")[0]
        if length > min(LONGEST_TEXT, self.source.size):
            raise DamagedFile(f"{self.source.path}: a text of {length} bytes: damaged?")
        self.at += length
        return self.read(self.at - length, self.at).decode("utf-8", "replace")
