"""The files of a run, read at positions into buffers that are used again and again.

A mapped file that is cut while we read kills the process; a positional read only comes back short. Files are kept open
as far as the system allows, and opened for each read beyond that.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from smd_analyze.errors import SmdError
from smd_analyze.records.finding import Finding

PAGE = 4096
SPARE_DESCRIPTORS = 128  # left to everybody else in the process
FAR_READERS = 8  # requests at a time
AGAIN = "Save it again, or leave it out with --steps."


class FarFiles(Protocol):
    """Files that are not of this machine, by URL. Both raise OSError or SmdError."""

    def identity(self, path: str) -> tuple[int, int]:
        """(size, stamp) as the file is now."""
        ...

    def read_into(self, path: str, offset: int, target: memoryview) -> int:
        """Fill the target with the bytes from `offset` on; returns their number, fewer only at the end of the file."""
        ...


@dataclass
class Files:
    """The files of one pass. `paths[f]` is file f; `identities[f]` its (size, time) when it was found, None if unknown.

    `problems` maps a file to what went wrong with it: once there, its tensors are missing. `far` reads URLs.
    """

    paths: tuple[str, ...]
    identities: tuple[tuple[int, int] | None, ...]
    descriptors: list[int | None] = field(default_factory=list)
    problems: dict[int, Finding] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    far: FarFiles | None = None

    def fail(self, file: int, code: str, message: str, remedy: str = AGAIN) -> None:
        """Note that a file cannot be trusted; the first reason stands."""
        with self.lock:
            self.problems.setdefault(file, Finding(code, "error", self.paths[file], message, remedy))

    def check(self, file: int, size: int, stamp: int) -> bool:
        """Is this still the file that was found?"""
        known = self.identities[file]
        if known is None or (size, stamp) == known:
            return True
        if size < known[0]:
            self.fail(file, "truncated-file", f"is {size} bytes long; it was {known[0]} when it was found")
        else:
            self.fail(file, "changed-file", "changed after it was found: its numbers are left out")
        return False

    def read(self, file: int, offset: int, target: memoryview) -> bool:
        """Fill `target` with the bytes from `offset` on. False (and a finding) if the file does not give them."""
        if file in self.problems:
            return False
        descriptor = self.descriptors[file]
        try:
            if descriptor is not None:
                got = _read_into(descriptor, offset, target)
            elif self.far is not None and is_far(self.paths[file]):
                got = self.far.read_into(self.paths[file], offset, target)
            else:
                with _opened(self.paths[file]) as descriptor:
                    if not self.check(file, *_identity(os.fstat(descriptor))):
                        return False
                    got = _read_into(descriptor, offset, target)
        except OSError as error:
            self.fail(file, "unreadable-file", f"cannot be read: {error.strerror or error}")
            return False
        except SmdError as error:
            self.fail(file, "unreadable-file", str(error).removeprefix(f"{self.paths[file]}: "))
            return False
        if got < len(target):
            self.fail(file, "truncated-file", f"ends at byte {offset + got}; a tensor lies beyond that")
            return False
        return True

    def check_again(self) -> None:
        """After the pass: a file that changed meanwhile may have given us halves of two checkpoints."""
        left = [f for f, known in enumerate(self.identities) if known is not None and f not in self.problems]
        for file in left:
            if not is_far(self.paths[file]):
                self.check_file(file)
        far = [file for file in left if is_far(self.paths[file])]
        if far:
            with ThreadPoolExecutor(FAR_READERS) as pool:
                list(pool.map(self.check_file, far))

    def check_file(self, file: int) -> None:
        """A finding if the file changed or went away."""
        path = self.paths[file]
        try:
            if self.far is not None and is_far(path):
                self.check(file, *self.far.identity(path))
            else:
                self.check(file, *_identity(os.stat(path)))  # noqa: PTH116 (a thousand files: pathlib costs more)
        except OSError as error:
            self.fail(file, "unreadable-file", f"went away while it was read: {error.strerror or error}")
        except SmdError as error:
            self.fail(file, "unreadable-file", str(error).removeprefix(f"{path}: "))


def is_far(path: str) -> bool:
    """A URL, not a path of this machine."""
    return "://" in path


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@contextmanager
def opened(identities: Mapping[str, tuple[int, int] | None], far: FarFiles | None = None) -> Iterator[Files]:
    """Open the files (path → identity), as many as the system lets us; closes them all, and puts the limit back.

    URLs are read by `far`, a request for each range.
    """
    files = Files(tuple(identities), tuple(identities.values()), far=far)
    with _descriptors(len(identities)) as room:
        try:
            for file, path in enumerate(files.paths):
                near = file < room and not (far is not None and is_far(path))
                files.descriptors.append(_open_one(files, file, path) if near else None)
            yield files
        finally:
            for descriptor in files.descriptors:
                if descriptor is not None:
                    os.close(descriptor)


def _open_one(files: Files, file: int, path: str) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        files.fail(file, "unreadable-file", f"cannot be opened: {error.strerror or error}")
        return None
    files.check(file, *_identity(os.fstat(descriptor)))
    return descriptor


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _descriptors(wanted: int) -> Iterator[int]:
    """How many files may stay open: raises the process's limit for the time of the pass if it must."""
    if not hasattr(os, "preadv"):  # no positional reads into a buffer: each read opens the file
        yield 0
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE_DESCRIPTORS
    limit = need if hard == resource.RLIM_INFINITY else min(need, hard)
    raised = soft != resource.RLIM_INFINITY and limit > soft
    if raised:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield wanted if soft == resource.RLIM_INFINITY else max(0, max(limit, soft) - SPARE_DESCRIPTORS)
    finally:
        if raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _read_into(descriptor: int, offset: int, target: memoryview) -> int:
    """Bytes read; fewer than asked only at the end of the file."""
    if hasattr(os, "preadv"):
        got = os.preadv(descriptor, [target], offset)
        while 0 < got < len(target):
            more = os.preadv(descriptor, [target[got:]], offset + got)
            if more == 0:
                break
            got += more
        return got
    os.lseek(descriptor, offset, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        got = 0
        while got < len(target) and (more := file.readinto(target[got:])):
            got += more
        return got
