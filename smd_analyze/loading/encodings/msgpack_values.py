"""msgpack with Flax' extensions: 1 is an array, 2 a complex number, 3 a scalar. Arrays stay where they lie.

Source: github.com/msgpack/msgpack/blob/master/spec.md; flax/serialization.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.encodings.numpy_arrays import number_at
from smd_analyze.loading.files.blocks import Blocks
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.tensors.dtypes import ITEMSIZE, NUMPY
from smd_analyze.loading.tensors.inert_objects import Inert, Span, dict_key
from smd_analyze.loading.tensors.places import Place, joined, placed

DEEPEST = 100
MOST_VALUES = 3_000_000
CHUNKED = "__msgpack_chunked_array__"  # arrays above 1 GiB are cut by Flax


class Reader(Blocks):
    """One pass over the file: small values are read, the bytes of arrays are skipped."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.at = 0
        self.end = source.size
        self.values = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        return self.read(*self.skip(count))

    def skip(self, count: int) -> tuple[int, int]:
        """Where the next bytes lie; they are passed over."""
        start = self.at
        if start + count > self.end:
            raise DamagedFile(f"{self.source.path}: msgpack: {count} bytes at {start} run past the end: truncated?")
        self.at = start + count
        return start, start + count

    def number(self, width: int) -> int:
        """An unsigned integer of `width` bytes, the most significant first."""
        return int.from_bytes(self.take(width), "big")

    def value(self, depth: int) -> Any:
        """One value with all that is in it."""
        self.values += 1
        if depth > DEEPEST or self.values > MOST_VALUES:
            raise UnsafeFile(f"{self.source.path}: refused: more than {MOST_VALUES} values or {DEEPEST} levels")
        code = self.take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code < 0x90:
            return self.mapping(code & 15, depth)
        if code < 0xA0:
            return self.sequence(code & 15, depth)
        if code < 0xC0:
            return self.text(code & 31)
        if 0xD4 <= code <= 0xD8:
            return self.extension(1 << (code - 0xD4), depth)
        return self.wide(code, depth)

    def wide(self, code: int, depth: int) -> Any:
        """The values whose first byte is followed by a length or by a number."""
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        for first, last, read in self.lengths():
            if first <= code <= last:
                return read(self.number(1 << (code - first)), depth)
        if code in (0xCA, 0xCB):
            return struct.unpack(">f" if code == 0xCA else ">d", self.take(4 if code == 0xCA else 8))[0]
        if 0xCC <= code <= 0xCF:
            return self.number(1 << (code - 0xCC))
        if 0xD0 <= code <= 0xD3:
            return int.from_bytes(self.take(1 << (code - 0xD0)), "big", signed=True)
        if code in (0xDC, 0xDD):
            return self.sequence(self.number(2 if code == 0xDC else 4), depth)
        if code in (0xDE, 0xDF):
            return self.mapping(self.number(2 if code == 0xDE else 4), depth)
        raise DamagedFile(f"{self.source.path}: msgpack: no value begins with byte {code:#x} (at {self.at - 1})")

    def lengths(self) -> tuple[tuple[int, int, Callable[[int, int], Any]], ...]:
        """First and last code of bytes, extensions and texts, whose length has 1, 2 or 4 bytes."""
        return (
            (0xC4, 0xC6, lambda n, depth: Span(*self.skip(n))),
            (0xC7, 0xC9, self.extension),
            (0xD9, 0xDB, lambda n, depth: self.text(n)),
        )

    def within(self, span: Span) -> Any:
        """The value that bytes hold which are msgpack themselves; the position stays where it is."""
        at, end = self.at, self.end
        self.at, self.end = span.start, span.stop
        found = self.value(0)
        self.at, self.end = at, end
        return found

    def text(self, length: int) -> str:
        """UTF-8."""
        return self.take(length).decode("utf-8", "replace")

    def sequence(self, count: int, depth: int) -> list[Any]:
        """A list; each value needs a byte at least."""
        if count > self.end - self.at:
            raise DamagedFile(f"{self.source.path}: msgpack: {count} values in {self.end - self.at} bytes: truncated?")
        return [self.value(depth + 1) for _ in range(count)]

    def mapping(self, count: int, depth: int) -> Any:
        """A dict, or the array of which it holds the chunks."""
        flat = self.sequence(2 * count, depth)
        made = {dict_key(k): v for k, v in zip(flat[::2], flat[1::2], strict=True)}
        return self.chunked(made) if made.get(CHUNKED) else made

    def chunked(self, found: dict[Any, Any]) -> Any:
        """An array cut into flat chunks, numbered in text."""
        what = f"{self.source.path}: an array in chunks"
        try:
            chunks = [found["chunks"][k] for k in sorted(found["chunks"], key=int)]
            shape = [found["shape"][k] for k in sorted(found["shape"], key=int)]
        except (KeyError, TypeError, ValueError):
            raise DamagedFile(f"{what}: does not say its shape") from None
        pieces: list[tuple[tuple[int, ...], Place]] = []
        begin = 0
        for chunk in chunks:
            if type(chunk) is not Place or len(chunk.shape) != 1:
                raise DamagedFile(f"{what}: a chunk is no flat array")
            pieces.append(((begin,), chunk))
            begin += chunk.shape[0]
        return joined(shape, chunks[0].dtype if chunks else "float32", pieces, what)

    def extension(self, length: int, depth: int) -> Any:
        """An array, a complex number or a scalar; an Inert for extensions that are not Flax'."""
        kind = self.take(1)[0]
        start, stop = self.skip(length)
        if kind not in (1, 3):
            return Inert(f"msgpack extension {kind}")
        self.at, outer, self.end = start, self.end, stop
        found = self.value(depth + 1)
        self.at, self.end = stop, outer
        what = f"{self.source.path}: the array at byte {start}"
        if not (isinstance(found, list) and len(found) == 3 and isinstance(found[2], Span)):
            raise DamagedFile(f"{what}: is not shape, type and bytes")
        shape, dtype, span = found
        if not isinstance(shape, list) or dtype not in NUMPY:
            return Inert(f"array of dtype {dtype}")
        if kind == 3:
            return number_at(dtype, self.source.read(span.start, min(span.stop, span.start + ITEMSIZE[dtype])))
        return placed(shape, None, dtype, 0, span.start, span.stop - span.start, what)
