"""Checkpoints of arrays in tensorstore's formats, as Orbax, T5X and Levanter lay them out, written without JAX."""

import json
from pathlib import Path

import numpy as np
import tensorstore


def flat(tree, path=()):
    """(path, leaf) of a tree of dicts; empty dicts are leaves."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def write(store: dict, value, zarr3: bool = False, chunks=None) -> None:
    """One array."""
    value = np.asarray(value)
    opened = tensorstore.open(
        {"driver": "zarr3" if zarr3 else "zarr", "kvstore": store, "store_data_equal_to_fill_value": True},
        create=True,
        context=tensorstore.Context({"file_io_sync": False}),
        dtype=value.dtype,
        shape=value.shape,
        chunk_layout=tensorstore.ChunkLayout(chunk_shape=chunks or [max(n, 1) for n in value.shape]),
    ).result()
    opened.write(value).result()


def orbax_item(folder: Path, tree: dict, ocdbt: bool = True, zarr3: bool = False) -> None:
    """An item of PyTreeSave."""
    folder.mkdir(parents=True)
    leaves = {}
    for path, value in flat(tree):
        name = ".".join(path)
        empty = value is None or value == {} if not isinstance(value, np.ndarray | np.generic) else False
        kind = ("Dict" if value == {} else "None") if empty else "jax.Array"
        leaves[str(path)] = {
            "key_metadata": [{"key": k, "key_type": 2} for k in path],
            "value_metadata": {"value_type": kind, "skip_deserialize": empty},
        }
        if not empty:
            place = {"driver": "file", "path": f"{folder}/{name}/"}
            base = {"driver": "file", "path": f"{folder}/"}
            write({"driver": "ocdbt", "base": base, "path": name + "/"} if ocdbt else place, value, zarr3)
    said = {"tree_metadata": leaves, "use_zarr3": zarr3, "store_array_data_equal_to_fill_value": True}
    (folder / "_METADATA").write_text(json.dumps(said))


def finish(step: Path, **said) -> None:
    """The step's own file."""
    said = {"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2, **said}
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(said))


def packed(value) -> bytes:
    """msgpack as Flax writes it."""
    if isinstance(value, dict):
        return b"\xde" + len(value).to_bytes(2, "big") + b"".join(packed(k) + packed(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return bytes([0x90 + len(value)]) + b"".join(map(packed, value))
    if isinstance(value, str):
        return b"\xd9" + bytes([len(value)]) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + len(value).to_bytes(4, "big") + value
    if isinstance(value, int):
        return b"\xd3" + value.to_bytes(8, "big", signed=True)
    body = packed([list(value.shape), value.dtype.name, value.tobytes()])
    return b"\xc9" + len(body).to_bytes(4, "big") + (b"\x03" if isinstance(value, np.generic) else b"\x01") + body
