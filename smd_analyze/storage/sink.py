"""The file under HDF5, written by us: HDF5 cannot close a file whose writes fail, so a full disk is kept from it."""

from __future__ import annotations

import os
from typing import BinaryIO

import h5py


class Sink:
    """A file as h5py's file-object driver wants it. The first write that fails is kept in `error`, later ones dropped.

    HDF5 believes that all went well, stays usable, and closes; who writes looks at `error` (`check`) and gives up.
    """

    def __init__(self, raw: BinaryIO) -> None:
        """`raw` is an unbuffered binary file, open for reading and writing."""
        self.raw = raw
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the OSError of the first write that failed, if one did."""
        if self.error is not None:
            raise self.error

    def sync(self) -> None:
        """Everything to the disk itself.

        Raises:
            OSError: a write failed, now or before.
        """
        self.check()
        os.fsync(self.raw.fileno())

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self.raw.tell()

    def readinto(self, buffer: memoryview) -> int:
        """As of a buffered file: fills the whole buffer, unless the file ends before."""
        filled = 0
        while filled < len(buffer):
            count = self.raw.readinto(buffer[filled:])  # type: ignore[attr-defined]
            if not count:
                break
            filled += count
        return filled

    def read(self, size: int) -> bytes:
        """As of a buffered file."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def write(self, data: memoryview) -> int:
        """All of `data`, or, after a failure, nothing; says all."""
        written = 0
        try:
            while self.error is None and written < len(data):
                written += self.raw.write(data[written:])
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        """As of any file."""
        try:
            self.raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def flush(self) -> None:
        """Nothing is buffered here."""


def create(raw: BinaryIO) -> tuple[Sink, h5py.File]:
    """A new HDF5 file in `raw`."""
    sink = Sink(raw)
    return sink, h5py.File(sink, "w", track_order=True)
