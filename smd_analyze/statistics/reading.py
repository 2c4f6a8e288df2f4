"""The files of a run, read at positions into buffers that are used again and again.

A mapped file that is cut while we read kills the process; a positional read only comes back short. Files are kept open
as far as the system allows, and opened for each read beyond that.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from smd_analyze.records.finding import Finding

PAGE = 4096
SPARE_DESCRIPTORS = 128  # left to everybody else in the process
AGAIN = "Save it again, or leave it out with --steps."


@dataclass
class Files:
    """The files of one pass. `paths[f]` is file f; `identities[f]` its (size, time) when it was found, None if unknown.

    `problems` maps a file to what went wrong with it: once there, its tensors are missing.
    """

    paths: tuple[str, ...]
    identities: tuple[tuple[int, int] | None, ...]
    descriptors: list[int | None] = field(default_factory=list)
    problems: dict[int, Finding] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, file: int, code: str, message: str, remedy: str = AGAIN) -> None:
        """Note that a file cannot be trusted; the first reason stands."""
        with self.lock:
            self.problems.setdefault(file, Finding(code, "error", self.paths[file], message, remedy))

    def check(self, file: int, status: os.stat_result) -> bool:
        """Is this still the file that was found?"""
        known = self.identities[file]
        if known is None or (status.st_size, status.st_mtime_ns) == known:
            return True
        if status.st_size < known[0]:
            self.fail(file, "truncated-file", f"is {status.st_size} bytes long; it was {known[0]} when it was found")
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
            else:
                with _opened(self.paths[file]) as descriptor:
                    if not self.check(file, os.fstat(descriptor)):
                        return False
                    got = _read_into(descriptor, offset, target)
        except OSError as error:
            self.fail(file, "unreadable-file", f"cannot be read: {error.strerror or error}")
            return False
        if got < len(target):
            self.fail(file, "truncated-file", f"ends at byte {offset + got}; a tensor lies beyond that")
            return False
        return True

    def check_again(self) -> None:
        """After the pass: a file that changed meanwhile may have given us halves of two checkpoints."""
        for file, path in enumerate(self.paths):
            if file not in self.problems and self.identities[file] is not None:
                try:
                    self.check(file, os.stat(path))  # noqa: PTH116 (a thousand files: pathlib costs more than the call)
                except OSError as error:
                    self.fail(file, "unreadable-file", f"went away while it was read: {error.strerror or error}")


@contextmanager
def opened(identities: Mapping[str, tuple[int, int] | None]) -> Iterator[Files]:
    """Open the files (path → identity), as many as the system lets us; closes them all, and puts the limit back."""
    files = Files(tuple(identities), tuple(identities.values()))
    with _descriptors(len(identities)) as room:
        try:
            for file, path in enumerate(files.paths):
                files.descriptors.append(_open_one(files, file, path) if file < room else None)
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
    files.check(file, os.fstat(descriptor))
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
