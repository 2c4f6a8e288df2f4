"""The directory of a zip archive: where each stored member's bytes lie (PKWARE APPNOTE 4.3).

Smaller and faster than zipfile, and it refuses what an honest archive of tensors does not hold.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.files.sources import Source

MAGIC = b"PK\x03\x04"
DEFLATED = 8  # the method; 0 is stored
MOST_MEMBERS = 2_000_000
ALIGNED = 64  # caffe2/serialize/inline_container.cc: kFieldAlignment
HEADERS = 256  # bytes behind a member's name that hold the rest of its header, and mostly that of an array in it
MOST_EXPECTED = 4096
SMALL = 1 << 18  # files up to this size are read in one go


class Member(NamedTuple):
    """One entry: `header` is where its local header stands, `size` its length in the file."""

    header: int
    size: int
    method: int
    flags: int


def is_zip(source: Source) -> bool:
    """A zip that begins with a member."""
    return source.head.startswith(MAGIC)


def first_name(source: Source) -> bytes:
    """The name of the first member, which an archive that is cut short still has."""
    return source.head[30 : 30 + int.from_bytes(source.head[26:28], "little")]


def read_directory(source: Source) -> dict[str, Member]:
    """Members by name. DamagedFile if the archive has no directory, UnsafeFile if a name stands twice."""
    if "zip" in source.scratch:
        return source.scratch["zip"]
    if source.size <= SMALL:
        source.head = source.read(0, source.size)
    count, size, start = find_directory(source)
    data = source.read(start, start + size)
    members: dict[str, Member] = {}
    at = 0
    unpack = struct.Struct("<4s4x2H8x2L3H8xL").unpack_from
    try:
        for _ in range(count):
            magic, flags, method, packed, full, name_length, extra, comment, header = unpack(data, at)
            if magic != b"PK\x01\x02":
                raise DamagedFile(f"{source.path}: its zip directory is not sound")
            name = data[at + 46 : at + 46 + name_length].decode("utf-8", "replace")
            if 0xFFFFFFFF in (packed, full, header):
                packed, header = wide(data[at + 46 + name_length : at + 46 + name_length + extra], packed, full, header)
            if name in members:
                raise UnsafeFile(f"{source.path}: refused: two members of the archive are named {name}")
            members[name] = Member(header, packed, method, flags)
            at += 46 + name_length + extra + comment
    except struct.error:
        raise DamagedFile(f"{source.path}: its zip directory is cut short") from None
    source.scratch["zip"] = members
    if source.far is not None:
        look_ahead(source, members, start)
    return members


def look_ahead(source: Source, members: dict[str, Member], end: int) -> None:
    """For a file elsewhere: where members begin without a request for each, or all their headers at once.

    torch aligns the bytes of every member. If the room up to the next member (or to the directory, at `end`) puts all
    of them at such places, the members' own headers need not be read.
    """
    headers = sorted({m.header for m in members.values()} | {end})
    after = dict(zip(headers, headers[1:], strict=False))
    starts: dict[str, int] = {}
    for name, member in members.items():
        least = member.header + 30 + len(name.encode())
        for tail in (16, 24) if member.flags & 8 else (0,):  # a record behind the bytes
            start = after.get(member.header, 0) - tail - member.size
            if start % ALIGNED == 0 and least <= start < least + 2 * ALIGNED:
                starts[name] = start
    if len(starts) == len(members):
        source.scratch["starts"] = starts
    elif len(members) <= MOST_EXPECTED:
        source.expect((m.header, m.header + 30 + len(n.encode()) + HEADERS) for n, m in members.items())


def find_directory(source: Source) -> tuple[int, int, int]:
    """(number of entries, bytes, position) from the end record, zip64 if there is one."""
    tail_start = max(0, source.size - 65_557)
    if source.size > SMALL:  # nearly always without a comment: look at the last bytes first
        short = source.read(source.size - 22, source.size)
        tail_start = source.size - 22 if short[:4] == b"PK\x05\x06" else tail_start
    tail = source.read(tail_start, source.size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise DamagedFile(
            f"{source.path}: a zip archive without its directory at the end: truncated, or still being written"
        )
    count, size, start = struct.unpack_from("<10xH2L", tail, at)
    end = tail_start + at
    if count == 0xFFFF or 0xFFFFFFFF in (size, start):
        locator = source.read(max(0, end - 20), end)
        if locator[:4] == b"PK\x06\x07":
            where = struct.unpack_from("<8xQ", locator)[0]
            record = source.read(where, min(where + 56, source.size))
            if record[:4] != b"PK\x06\x06" or len(record) < 56:
                raise DamagedFile(f"{source.path}: its zip64 directory is not sound")
            count, size, start = struct.unpack_from("<32x3Q", record)
    if count > MOST_MEMBERS or start + size > source.size:
        raise DamagedFile(f"{source.path}: its zip directory claims {count} members in {size} bytes at {start}")
    return count, size, start


def wide(extra: bytes, packed: int, full: int, header: int) -> tuple[int, int]:
    """(packed size, header position) with 64-bit values from the zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            if full == 0xFFFFFFFF and values:
                values.pop(0)
            if packed == 0xFFFFFFFF and values:
                packed = values.pop(0)
            if header == 0xFFFFFFFF and values:
                header = values.pop(0)
        at += 4 + length
    return packed, header


def data_start(source: Source, name: str, member: Member) -> int:
    """First byte of a stored member. UnsafeFile if it is compressed or encrypted, DamagedFile if it leaves the file."""
    if member.method != 0 or member.flags & 1:
        raise UnsafeFile(
            f"{source.path}: refused: member {name} is compressed or encrypted; torch.save stores tensors as they are"
        )
    return member_start(source, name, member)


def member_start(source: Source, name: str, member: Member) -> int:
    """First byte of a member, packed or not. DamagedFile if it leaves the file."""
    start = source.scratch.get("starts", {}).get(name)
    if start is not None:
        return start
    header = source.read(member.header, min(member.header + 30, source.size))
    if header[:4] != b"PK\x03\x04" or len(header) < 30:
        raise DamagedFile(f"{source.path}: no member begins where the directory says that {name} does")
    name_length, extra = struct.unpack_from("<2H", header, 26)
    start = member.header + 30 + name_length + extra
    if start + member.size > source.size:
        raise DamagedFile(f"{source.path}: member {name} leaves the file: truncated")
    return start


def read_member(source: Source, name: str, most: int) -> bytes:
    """A member's bytes, packed or not; UnsafeFile if they are more than `most`."""
    member = read_directory(source)[name]
    start = member_start(source, name, member)
    if member.size > most:
        raise UnsafeFile(f"{source.path}: refused: {name} has more than {most} bytes")
    data = source.read(start, start + member.size)
    return inflated(data, f"{source.path}: {name}", most) if member.method == DEFLATED else data


def inflated(data: bytes, what: str, most: int) -> bytes:
    """Deflated bytes, unpacked; UnsafeFile if there are more than `most` of them, DamagedFile if they are not sound."""
    machine = zlib.decompressobj(-15)
    try:
        out = machine.decompress(data, most)
    except zlib.error as problem:
        raise DamagedFile(f"{what}: does not unpack: {problem}") from None
    if machine.unconsumed_tail:
        raise UnsafeFile(f"{what}: refused: unpacks to more than {most} bytes")
    if not machine.eof:
        raise DamagedFile(f"{what}: does not unpack: cut short")
    return out
