"""The bytes of one file: positional reads into memory of our own, and an eye on files that change under us.

Nothing is memory-mapped: a mapped file that is truncated meanwhile kills the process (SIGBUS); a short read only fails.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from smd_analyze.errors import DamagedFile, UnknownFormat

MOST_AT_ONCE = 1 << 30  # bytes asked for in one call
HEAD = 4096  # bytes that formats look at to recognise a file


class FileId(NamedTuple):
    """A file as it was when it was listed: `size` in bytes, `mtime_ns` its modification time."""

    path: str
    size: int
    mtime_ns: int


@dataclass
class Source:
    """An open file. `scratch` keeps what a format learnt while recognising it, so that opening need not read again."""

    path: str
    size: int
    mtime_ns: int
    descriptor: int
    head: bytes = b""
    scratch: dict[str, Any] = field(default_factory=dict)
    base: int = 0  # where byte 0 lies in the file, if this is a part of one

    @property
    def file(self) -> FileId:
        """What stays when the file is closed."""
        return FileId(self.path, self.size, self.mtime_ns)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`. A range outside the file is a DamagedFile."""
        if not 0 <= start <= stop <= self.size:
            raise DamagedFile(
                f"{self.path}: needs bytes {start} to {stop}, but has {self.size}: it is truncated or lies"
            )
        if stop <= len(self.head):
            return self.head[start:stop]
        data = os.pread(self.descriptor, stop - start, self.base + start)
        while len(data) < stop - start:
            more = os.pread(self.descriptor, stop - start - len(data), self.base + start + len(data))
            if not more:
                raise changed(self.path)
            data += more
        return data


def part_of(source: Source, start: int, nbytes: int) -> Source:
    """`nbytes` bytes from `start` of an open file as a source of their own; places in it count from `start`."""
    if type(start) is not int or type(nbytes) is not int or not 0 <= start <= start + nbytes <= source.size:
        raise DamagedFile(f"{source.path}: needs {nbytes} bytes from {start}, but has {source.size}: it is truncated")
    part = Source(source.path, nbytes, source.mtime_ns, source.descriptor, base=source.base + start)
    part.head = os.pread(part.descriptor, min(HEAD, nbytes), part.base)
    return part


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a regular file for reading; the descriptor is closed at the end of the block."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnknownFormat(f"{path}: not a regular file")
        source = Source(path, found.st_size, found.st_mtime_ns, descriptor)
        source.head = os.pread(descriptor, HEAD, 0)
        yield source
    finally:
        os.close(descriptor)


def read_array(file: FileId, start: int, nbytes: int) -> np.ndarray:
    """`nbytes` bytes from `start` as a uint8 array that owns them; DamagedFile if the file is not what it was."""
    buffer = np.empty(nbytes, np.uint8)
    view = buffer.data
    descriptor = os.open(file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        check_unchanged(file, descriptor)
        done = 0
        while done < nbytes:
            count = read_into(descriptor, view[done : done + MOST_AT_ONCE], start + done)
            if not count:
                raise changed(file.path)
            done += count
        check_unchanged(file, descriptor)
    finally:
        os.close(descriptor)
    return buffer


def read_into(descriptor: int, view: memoryview, start: int) -> int:
    """Fill the view from byte `start`; returns how many bytes came. Not every system has preadv."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], start)
    data = os.pread(descriptor, len(view), start)
    view[: len(data)] = data
    return len(data)


def check_unchanged(file: FileId, descriptor: int) -> None:
    """Size and modification time are still those of the listing, or DamagedFile."""
    now = os.fstat(descriptor)
    if (now.st_size, now.st_mtime_ns) != (file.size, file.mtime_ns):
        raise changed(file.path)


def changed(path: str) -> DamagedFile:
    """The error for a file that was written to since it was listed."""
    return DamagedFile(f"{path}: changed while it was being read; wait until it is written, then start again")
