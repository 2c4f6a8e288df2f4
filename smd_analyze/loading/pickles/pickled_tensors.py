"""Tensors in pickles: which inert calls of torch, numpy and jax mean an array, and where its elements then lie."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.encodings.numpy_arrays import column_major
from smd_analyze.loading.tensors.dtypes import ITEMSIZE, NUMPY_CODES, STORAGES
from smd_analyze.loading.tensors.inert_objects import Inert, Name, Persistent, Span, inert_call
from smd_analyze.loading.tensors.places import Place, placed

DEEPEST = 200  # levels of nesting that are walked

NUMPY_NAMES = {**NUMPY_CODES, **{n: n for n in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}}
SCALARS = {"float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h", "int8": "b",
           "uint64": "Q", "uint32": "I", "uint16": "H", "uint8": "B", "bool": "?"}  # fmt: skip


class Stored(NamedTuple):
    """A torch storage: its bytes `start` to `start + nbytes` in the file, and its elements' type."""

    start: int
    nbytes: int
    dtype: str


@cache
def storage_dtype(kind: Any) -> str:
    """dtype name of a storage class or dtype, given as a Name."""
    short = str(kind).rpartition(" ")[2].rpartition(".")[2]
    return STORAGES.get(short, short)


class TensorCalls:
    """The `call` and `resolve` of `read_pickle` that make Places. `locate(key, dtype)` finds a storage in the file,
    `inside(span)` one that is pickled by itself among the bytes of the pickle."""

    def __init__(
        self,
        what: str,
        locate: Callable[[Any, str], Stored] | None = None,
        inside: Callable[[Span], Stored | None] | None = None,
    ) -> None:
        self.what = what
        self.locate = locate
        self.inside = inside
        self.unfinished = False  # numpy arrays get their state after the call: `finish` is then needed

    def resolve(self, key: Any) -> Any:
        """A persistent id of torch: ("storage", class, key, device, number of elements[, view])."""
        if self.locate and isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage":
            return self.locate(key[2], storage_dtype(key[1]))
        return Persistent(key)

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        """A Place if the call means an array that is complete, else plain data or an Inert."""
        if name[:5] == "torch":
            short = name.rpartition(" ")[2]
            if short[:8] == "_rebuild":
                return self.rebuild(name, short, args)
            if short == "_load_from_bytes" and self.inside and len(args) == 1 and isinstance(args[0], Span):
                return self.inside(args[0]) or Inert(name, args)
        elif name.startswith(("numpy", "jax")):
            short = name.rpartition(" ")[2]
            if short == "scalar" and len(args) == 2:
                return scalar(args)
            if short == "_frombuffer" and len(args) == 4:
                return self.array(args[2], args[1], args[0], args[3] == "F") or Inert(name, args)
            if short in ("_reconstruct", "ndarray", "_reconstruct_array"):
                self.unfinished = True
                return Inert(name, args)
        if name.endswith("_reconstruct_persistent_obj") and len(args) == 1 and type(args[0]) is dict:
            # StyleGAN's pickles carry the source of their classes: it is not looked at
            return Inert(str(args[0].get("class_name")), (), args[0].get("state"))
        return inert_call(name, args)

    def rebuild(self, name: str, short: str, args: tuple[Any, ...]) -> Any:
        """torch._utils._rebuild_*: what torch calls to make a tensor of a storage."""
        # the one call that nearly every tensor makes comes first
        if short in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3", "_rebuild_qtensor"):
            if len(args) < 4 or not isinstance(args[0], Stored):
                return Inert(name, args)
            storage, first, shape, strides = args[:4]
            dtype = storage_dtype(args[6]) if short == "_rebuild_tensor_v3" and len(args) > 6 else storage.dtype
            if dtype not in ITEMSIZE:
                return Inert(f"tensor of dtype {dtype}", args)
            return placed(shape, strides, dtype, first, storage.start, storage.nbytes, self.what)
        if short in ("_rebuild_parameter", "_rebuild_parameter_with_state") and args:
            return args[0]
        if short == "_rebuild_device_tensor_from_numpy" and args:  # XLA and the like: a numpy array
            self.unfinished = True
            return Inert(name, args)
        if short == "_rebuild_from_type_v2" and len(args) >= 3 and type(args[0]) is Name and isinstance(args[2], tuple):
            if args[0].endswith(" _rebuild_wrapper_subclass"):  # DTensor: what it wraps is its state
                return wrapped(list(args[2]), args[3] if len(args) > 3 else None)
            return self.call(args[0], args[2])
        return Inert(name, args)

    def array(self, shape: Any, dtype: Any, raw: Any, fortran: bool) -> Place | None:
        """A numpy array whose bytes lie in the pickle: as a Span, or decoded from text. None for object arrays."""
        name, big = numpy_dtype(dtype)
        if name is None or not isinstance(raw, Span | bytes | str) or not isinstance(shape, tuple):
            return None
        if isinstance(raw, str):
            raw = raw.encode("latin1", "replace")
        start, nbytes = (raw.start, raw.stop - raw.start) if isinstance(raw, Span) else (0, len(raw))
        strides = column_major(shape) if fortran and len(shape) > 1 else None
        place = placed(shape, strides, name, 0, start, nbytes, self.what)
        inline = raw if isinstance(raw, bytes) else None
        return Place(place.shape, name, start, place.strides, big_endian=big, inline=inline)

    def finish(self, tree: Any) -> Any:
        """The tree with numpy's and jax' arrays as Places, once their state is known."""
        return self.walk(tree, 0, {}) if self.unfinished else tree

    def walk(self, node: Any, depth: int, seen: dict[int, Any]) -> Any:
        """Depth first, each shared object once; trees may be cyclic (omegaconf) or unfold without end."""
        kind = type(node)
        if kind not in (dict, list, tuple, Inert):
            return node
        if id(node) in seen:
            return seen[id(node)]
        if depth > DEEPEST:
            raise UnsafeFile(f"{self.what}: refused: nested deeper than {DEEPEST} levels")
        if kind is tuple:
            return tuple(self.walk(v, depth + 1, seen) for v in node)
        seen[id(node)] = node
        if kind is dict:
            for key, value in node.items():
                node[key] = self.walk(value, depth + 1, seen)
        elif kind is list:
            node[:] = [self.walk(v, depth + 1, seen) for v in node]
        else:
            node.args = self.walk(node.args, depth + 1, seen)
            node.state = self.walk(node.state, depth + 1, seen)
            self.walk(node.items, depth + 1, seen)
            self.walk(node.sequence, depth + 1, seen)
            seen[id(node)] = self.finished(node) or node
        return seen[id(node)]

    def finished(self, node: Inert) -> Place | None:
        """A numpy or jax array with its state set, as a Place."""
        module, _, short = node.name.partition(" ")
        state, args = node.state, list(node.args)
        if short == "_rebuild_device_tensor_from_numpy":
            return args[0] if args and type(args[0]) is Place else None
        if module.startswith("jax") and short == "_reconstruct_array" and len(args) >= 3:
            state = args[2]
        elif not (module.startswith("numpy") and short in ("_reconstruct", "ndarray")):
            return None
        if isinstance(state, tuple) and len(state) == 5:
            return self.array(state[1], state[2], state[4], bool(state[3]))
        return None


def wrapped(made: list[Any], saved: Any) -> Any:
    """A DTensor: the tensor itself if one rank holds all of it, else an Inert of shape, part and placement in `args`.

    `made` are the arguments it is made with (class, dtype, shape, …), `saved` is its state.
    """
    state = Inert("", (), saved).attributes  # classes with slots save a pair
    local, spec, shape = state.get("_local_tensor"), state.get("_spec"), made[2] if len(made) > 2 else None
    placements = spec.attributes.get("placements") if type(spec) is Inert else None
    partial = any(type(p) is Inert and "artial" in p.name for p in placements or ())
    if type(local) is Place and local.shape == shape and not partial:
        return local
    return Inert(f"a part of a {made[0] if made else 'tensor'}", (shape, local, spec))


def numpy_dtype(dtype: Any) -> tuple[str | None, bool]:
    """(torch's name of a pickled numpy dtype or None, whether it is big-endian)."""
    if not isinstance(dtype, Inert) or not dtype.args:
        return None, False
    code = dtype.args[0]
    code = str(code).rpartition(" ")[2] if isinstance(code, str) else ""
    big = isinstance(dtype.state, tuple) and len(dtype.state) > 1 and dtype.state[1] == ">"
    return NUMPY_NAMES.get(code.lstrip("<>=|")), big


def scalar(args: tuple[Any, ...]) -> Any:
    """A numpy scalar as a Python number; an Inert if its type is none of ours."""
    name, big = numpy_dtype(args[0])
    raw = args[1].encode("latin1", "replace") if isinstance(args[1], str) else args[1]
    if name not in SCALARS or not isinstance(raw, bytes):
        return Inert("numpy scalar", args)
    try:
        value = struct.unpack((">" if big else "<") + SCALARS[name], raw)[0]
    except struct.error:
        raise DamagedFile(f"a numpy scalar of type {name} with {len(raw)} bytes") from None
    # as short as the type writes it: 0.1 for float32's 0.10000000149
    return float(str(np.float32(value))) if name == "float32" else value
