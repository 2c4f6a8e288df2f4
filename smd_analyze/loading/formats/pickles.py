"""A plain pickle of dicts and numpy, jax or torch arrays; the arrays' bytes stay where they lie in it."""

from __future__ import annotations

from functools import partial

from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.pickles.pickled_tensors import TensorCalls
from smd_analyze.loading.pickles.torch_stream import MAGIC, storage_inside


def matches(source: Source) -> bool:
    """A pickle of protocol 2 to 5 that is neither torch's old format nor a safetensors header's length."""
    head = source.head
    if head[4:9] == b"\0\0\0\0{":
        return False
    return (
        head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and head[2 : 2 + len(MAGIC)] != MAGIC
    )


def open_document(source: Source, previous: Document | None) -> Document:
    """What was pickled, as data. A second pickle behind the first is not looked at."""
    calls = TensorCalls(source.path, inside=partial(storage_inside, source))
    tree, _ = read_pickle(source.read, 0, source.size, what=source.path, call=calls.call, resolve=calls.resolve)
    return Document(source.path, FORMAT.name, calls.finish(tree), (source.file,))


FORMAT = Format("pickle", matches, open_document)
