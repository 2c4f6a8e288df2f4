"""What np.save and np.savez pickle: a dict of arrays, or a list of them. Read as data, never unpickled."""

from __future__ import annotations

import re
from typing import Any

from smd_analyze.loading.encodings.numpy_arrays import MAGIC
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.pickles.pickled_tensors import TensorCalls
from smd_analyze.loading.tensors.inert_objects import Inert

OBJECTS = re.compile(rb"'descr': '\|O'")


def holds_objects(head: bytes) -> bool:
    """Whether a .npy file that begins with `head` is an array of objects."""
    return head[:6] == MAGIC and OBJECTS.search(head[:256]) is not None


def read_objects(source: Source, start: int, stop: int, what: str) -> Any:
    """The objects of the .npy array at bytes `start` to `stop`: the one alone, or a list. Inert if it is no such array.

    DamagedFile or UnsafeFile as read_pickle says.
    """
    head = source.read(start, min(stop, start + 12))
    wide = 12 if head[6] >= 2 else 10
    first = start + wide + int.from_bytes(head[8:wide], "little")
    calls = TensorCalls(what)
    pickled, _ = read_pickle(source.read, first, stop, what=what, call=calls.call, resolve=calls.resolve)
    tree = calls.finish(pickled)
    state = tree.state if type(tree) is Inert and tree.name.startswith("numpy") else None
    held = state[4] if isinstance(state, tuple) and len(state) == 5 else None
    if not isinstance(held, list):
        return Inert("numpy array of objects")
    return held[0] if len(held) == 1 else held
