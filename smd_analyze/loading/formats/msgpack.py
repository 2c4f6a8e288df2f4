"""Flax' msgpack files (flax.serialization): one map of maps, or a stream of (path, array) pairs as EasyLM writes it."""

from __future__ import annotations

from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.msgpack_values import Reader
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.inert_objects import Span


def matches(source: Source) -> bool:
    """A map whose first key is a printable text, or a pair that begins with a list of such texts."""
    head = source.head
    if head[:1] == b"\x92" and len(head) > 2:  # EasyLM: a pair of a list of one to fifteen keys and bytes
        return 0x91 <= head[1] <= 0x9F and begins_with_text(head, 2)
    if not head or not (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return False
    return begins_with_text(head, {0xDE: 3, 0xDF: 5}.get(head[0], 1))


def begins_with_text(head: bytes, at: int) -> bool:
    """A text of printable ASCII stands at byte `at`."""
    if len(head) < at + 2:
        return False
    at, length = (
        (at + 2, head[at + 1]) if head[at] == 0xD9 else (at + 1, head[at] & 0x1F if 0xA1 <= head[at] <= 0xBF else 0)
    )
    name = head[at : at + length]
    return bool(length) and len(name) == length and name.isascii() and name.decode("ascii").isprintable()


def open_document(source: Source, previous: Document | None) -> Document:
    """The tree of dicts that was saved. DamagedFile if the file ends early or goes on behind it."""
    reader = Reader(source)
    if source.head[:1] == b"\x92":
        tree = stream(reader)
    else:
        tree = reader.value(0)
        if reader.at != source.size:
            raise DamagedFile(f"{source.path}: {source.size - reader.at} bytes follow the end of its msgpack: damaged?")
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def stream(reader: Reader) -> dict[str, Any]:
    """Pairs of a path and bytes that are msgpack themselves, one behind the other, as a tree."""
    tree: dict[str, Any] = {}
    path = reader.source.path
    while reader.at < reader.source.size:
        pair = reader.value(0)
        keys, value = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if not isinstance(keys, list) or not keys or not all(isinstance(k, str) for k in keys):
            raise DamagedFile(
                f"{path}: msgpack: before byte {reader.at} stands no pair of a path and an array: damaged?"
            )
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise DamagedFile(f"{path}: {'/'.join(keys)}: one of its parts is an array already")
        node[keys[-1]] = reader.within(value) if isinstance(value, Span) else value
    return tree


FORMAT = Format("msgpack", matches, open_document)
