"""Reading small things of a file elsewhere in few requests: blocks of 64 KiB, kept in memory, more of them in a stream.

A request costs as much as a megabyte does, so a block is the least that is asked for, whoever wants a few bytes; large
ranges are asked for as they are. What has come is kept for all, up to a bound, by file and version.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import TypeVar

from smd_analyze.errors import SmdError
from smd_analyze.loading.files.file_ids import FileId
from smd_analyze.loading.files.remote import AT_ONCE, fetch, fetch_all, first, look

BLOCK = 1 << 16
MOST_AHEAD = 16  # blocks, when a file is read on and on
SMALL = 4  # blocks: a file of so many is taken whole
KEPT = 1 << 27  # bytes
MOST_BLOCKS = 256  # of a range that is looked for in what is kept
GAP = 1 << 14  # bytes that are asked for along with two ranges rather than by another request

LOOK_AHEAD = 16  # checkpoints whose files are opened before their turn

T = TypeVar("T")
Key = tuple[FileId, int]


class _Kept:
    """The bytes that came last, of all files."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.parts: OrderedDict[Key, bytes] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Key) -> bytes | None:
        with self.lock:
            if key in self.parts:
                self.parts.move_to_end(key)
            return self.parts.get(key)

    def put(self, key: Key, part: bytes) -> None:
        with self.lock:
            self.held += len(part) - len(self.parts.pop(key, b""))
            self.parts[key] = part
            while self.held > self.most:
                self.held -= len(self.parts.popitem(last=False)[1])


KEPT_PARTS = _Kept(KEPT)


OPENED: dict[str, FarFile] = {}
"""Files that were opened ahead of their turn."""


def open_far(url: str) -> FarFile:
    """The file as it is now; its first bytes have come already."""
    ready = OPENED.pop(url, None)
    if ready is not None:
        return ready
    file, head, _ = first(url, BLOCK)
    far = FarFile(file)
    far.keep(0, head)
    return far


def opened_ahead(items: Sequence[T], urls: Callable[[T], Iterable[str]]) -> Iterator[T]:
    """The items in their order, while the files of the next ones are already being opened, several at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun: deque[tuple[T, list[Future[None]]]] = deque()
        left = iter(items)
        while True:
            for item in islice(left, max(0, LOOK_AHEAD - len(begun))):
                begun.append((item, [pool.submit(open_ahead, url) for url in urls(item)]))
            if not begun:
                return
            item, futures = begun.popleft()
            wait(futures)
            yield item
            for url in urls(item):
                OPENED.pop(url, None)


def open_ahead(url: str) -> None:
    """Open a file and ask for what is read first. What fails here fails again, and is told, when its turn comes."""
    with suppress(SmdError, OSError):
        far = open_far(url)
        if far.pread(4, 0) == b"PK\x03\x04":
            far.pread(22, far.file.size - 22)
        OPENED[url] = far


def kept(file: FileId, start: int, stop: int) -> bytes | None:
    """The bytes if all of them have come before."""
    low, high = start // BLOCK, (stop - 1) // BLOCK
    if high - low >= MOST_BLOCKS:
        return None
    blocks = [KEPT_PARTS.get((file, n)) for n in range(low, high + 1)]
    data = b"".join(block for block in blocks if block is not None)
    return data[start - low * BLOCK : stop - low * BLOCK] if None not in blocks else None


class FarFiles:
    """Files elsewhere as the pass over the weights reads them: large ranges, one request each."""

    def __init__(self) -> None:
        self.known: dict[str, FileId] = {}

    def identity(self, path: str) -> tuple[int, int]:
        """(size, stamp) as the file is now."""
        self.known[path] = look(path, anew=True)
        return self.known[path].size, self.known[path].stamp

    def read_into(self, path: str, offset: int, target: memoryview) -> int:
        """Fill the target with the bytes from `offset` on; fewer at the end of the file."""
        file = self.known[path] if path in self.known else self.known.setdefault(path, look(path))
        stop = min(offset + len(target), file.size)
        data = kept(file, offset, stop)
        data = fetch(file, offset, stop) if data is None else data
        target[: len(data)] = data
        return len(data)


class FarFile:
    """The bytes of one file, by position."""

    def __init__(self, file: FileId) -> None:
        self.file = file
        self.next = 1  # the block behind the last one that was asked for
        self.ahead = 1
        self.starts: list[int] = []  # of the pieces that were fetched ahead, in order
        self.pieces: list[bytes] = []

    def pread(self, count: int, at: int) -> bytes:
        """`count` bytes from byte `at`; fewer at the end of the file."""
        stop = min(at + count, self.file.size)
        if stop <= at:
            return b""
        piece = bisect_right(self.starts, at) - 1
        if piece >= 0 and stop <= self.starts[piece] + len(self.pieces[piece]):
            return self.pieces[piece][at - self.starts[piece] : stop - self.starts[piece]]
        low, high = at // BLOCK, (stop - 1) // BLOCK
        blocks = {n: KEPT_PARTS.get(self.key(n)) for n in range(low, high + 1)} if high - low < MOST_BLOCKS else {}
        missing = [n for n, block in blocks.items() if block is None]
        if not blocks or (missing and high - low > MOST_AHEAD):
            return fetch(self.file, at, stop)
        if missing:
            blocks |= self.more(missing[0], missing[-1])
        data = b"".join(block for n in range(low, high + 1) if (block := blocks[n]))
        return data[at - low * BLOCK : stop - low * BLOCK]

    def more(self, low: int, high: int) -> dict[int, bytes | None]:
        """Blocks `low` to `high`, and others that are likely to be wanted next, in one request."""
        last = (self.file.size - 1) // BLOCK
        self.ahead = min(2 * self.ahead, MOST_AHEAD) if low == self.next else 1
        high = min(last, max(high, low + self.ahead - 1))
        if last < SMALL:
            low, high = min((n for n in range(low) if KEPT_PARTS.get(self.key(n)) is None), default=low), last
        elif high == last:  # directories stand at the end
            low = min(low, last - 1)
        self.next = high + 1
        start = low * BLOCK
        return self.keep(start, fetch(self.file, start, min((high + 1) * BLOCK, self.file.size)))

    def keep(self, start: int, data: bytes) -> dict[int, bytes | None]:
        """Keep the blocks that are whole in `data`, which begins at byte `start`."""
        found: dict[int, bytes | None] = {}
        for at in range(0, len(data), BLOCK):
            number = (start + at) // BLOCK
            block = data[at : at + BLOCK]
            if len(block) == BLOCK or start + at + len(block) == self.file.size:
                found[number] = block
                KEPT_PARTS.put(self.key(number), block)
        return found

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Ask for small ranges that will be read soon, many at a time; those in blocks that have come cost nothing."""
        wanted: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            stop = min(stop, self.file.size)
            if not 0 <= start < stop or all(
                KEPT_PARTS.get(self.key(n)) is not None for n in range(start // BLOCK, (stop - 1) // BLOCK + 1)
            ):
                continue
            if wanted and start - wanted[-1][1] < GAP:
                wanted[-1] = (wanted[-1][0], max(stop, wanted[-1][1]))
            else:
                wanted.append((start, stop))
        self.starts = [start for start, _ in wanted]
        self.pieces = fetch_all(self.file, wanted)

    def key(self, number: int) -> Key:
        """A block's place among what is kept."""
        return self.file, number
