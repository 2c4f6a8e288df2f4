"""The bytes of one file, here or elsewhere: positional reads into memory of our own, and an eye on files that change.

Nothing is memory-mapped: a mapped file that is truncated meanwhile kills the process (SIGBUS); a short read only fails.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from smd_analyze.errors import DamagedFile, UnknownFormat
from smd_analyze.loading.files import remote
from smd_analyze.loading.files.file_ids import FileId as FileId
from smd_analyze.loading.files.file_ids import changed as changed
from smd_analyze.loading.files.remote_blocks import FarFile, kept, open_far

MOST_AT_ONCE = 1 << 30  # bytes asked for in one call
FAR_PIECE = 1 << 23  # bytes of a large tensor elsewhere that one request asks for
HEAD = 4096  # bytes that formats look at to recognise a file


@dataclass
class Source:
    """An open file. `scratch` keeps what a format learnt while recognising it, so that opening need not read again.

    `pread(count, at)` gives bytes of the file, as os.pread does. `far` is there if every read is a request.
    """

    path: str
    size: int
    mtime_ns: int
    pread: Callable[[int, int], bytes]
    head: bytes = b""
    scratch: dict[str, Any] = field(default_factory=dict)
    base: int = 0  # where byte 0 lies in the file, if this is a part of one
    version: str = ""
    far: FarFile | None = None

    @property
    def file(self) -> FileId:
        """What stays when the file is closed."""
        return FileId(self.path, self.size, self.mtime_ns, self.version)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`. A range outside the file is a DamagedFile."""
        if not 0 <= start <= stop <= self.size:
            raise DamagedFile(
                f"{self.path}: needs bytes {start} to {stop}, but has {self.size}: it is truncated or lies"
            )
        if stop <= len(self.head):
            return self.head[start:stop]
        data = self.pread(stop - start, self.base + start)
        while len(data) < stop - start:
            more = self.pread(stop - start - len(data), self.base + start + len(data))
            if not more:
                raise changed(self.path)
            data += more
        return data

    def check_unchanged(self) -> None:
        """DamagedFile if a file elsewhere is no longer the one that was opened; an open file here is what it was."""
        if self.far is not None and not remote.is_http(self.path):
            remote.check_unchanged(self.far.file)

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Says which small ranges will be read next: for a file elsewhere they are asked for together."""
        if self.far is not None:
            self.far.fetch_ahead((self.base + start, self.base + stop) for start, stop in ranges)


def part_of(source: Source, start: int, nbytes: int) -> Source:
    """`nbytes` bytes from `start` of an open file as a source of their own; places in it count from `start`."""
    if type(start) is not int or type(nbytes) is not int or not 0 <= start <= start + nbytes <= source.size:
        raise DamagedFile(f"{source.path}: needs {nbytes} bytes from {start}, but has {source.size}: it is truncated")
    part = Source(source.path, nbytes, source.mtime_ns, source.pread, base=source.base + start)
    part.version, part.far = source.version, source.far
    part.head = part.pread(min(HEAD, nbytes), part.base)
    return part


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open a regular file for reading; the descriptor is closed at the end of the block."""
    if remote.is_remote(path):
        yield far_source(path)
        return
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnknownFormat(f"{path}: not a regular file")
        source = Source(path, found.st_size, found.st_mtime_ns, partial(os.pread, descriptor))
        source.head = os.pread(descriptor, HEAD, 0)
        yield source
    finally:
        os.close(descriptor)


def far_source(url: str) -> Source:
    """A file elsewhere: there is nothing to close."""
    try:
        far = open_far(url)
    except IsADirectoryError:
        raise UnknownFormat(f"{url}: not a regular file") from None
    file = far.file
    return Source(url, file.size, file.mtime_ns, far.pread, far.pread(HEAD, 0), version=file.version, far=far)


def read_array(file: FileId, start: int, nbytes: int) -> np.ndarray:
    """`nbytes` bytes from `start` as a uint8 array that owns them; DamagedFile if the file is not what it was."""
    buffer = np.empty(nbytes, np.uint8)
    view = buffer.data
    if remote.is_remote(file.path):
        read_far(file, start, view)
        return buffer
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


def read_far(file: FileId, start: int, view: memoryview) -> None:
    """Fill the view with the bytes from `start` on, a few requests at a time; the file is looked at afterwards."""
    if start + len(view) > file.size:
        raise changed(file.path)
    held = kept(file, start, start + len(view))
    if held is not None:
        view[:] = held
        return
    round_bytes = FAR_PIECE * remote.AT_ONCE
    for done in range(0, len(view), round_bytes):
        end = min(done + round_bytes, len(view))
        ranges = [(start + at, start + min(at + FAR_PIECE, end)) for at in range(done, end, FAR_PIECE)]
        at = done
        for part in remote.fetch_all(file, ranges):
            view[at : at + len(part)] = part
            at += len(part)
    if not remote.is_http(file.path):  # there every answer tells which file it is of
        remote.check_unchanged(file)


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
