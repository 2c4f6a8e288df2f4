"""The header of NumPy's .npy format: element type, order and shape of one array (numpy.lib.format, versions 1 to 3)."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.tensors.dtypes import FLOATING, ITEMSIZE, NUMPY, NUMPY_CODES
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, placed

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # numpy's own bound
ALIGNED = 16  # numpy pads its headers to a multiple of this (1.14 and later: of 64)
DTYPES = {**NUMPY_CODES, "V2": "bfloat16", "bfloat16": "bfloat16"}
"""ml_dtypes' bfloat16 is written as two bytes of no type (V2)."""

Read = Callable[[int, int], bytes]


def read_header(read: Read, start: int, size: int, what: str) -> tuple[Place | Inert, int]:
    """(the array, first byte behind it) of the .npy file at bytes `start` to `start + size`, given by `read`.

    Arrays of objects, text or records are an Inert: what they hold is never unpickled. DamagedFile if the array does
    not lie in its bytes.
    """
    head = read(start, start + min(size, 12))
    if head[:6] != MAGIC or len(head) < 10:
        raise DamagedFile(f"{what}: is no NumPy array")
    wide = 12 if head[6] >= 2 else 10
    length = int.from_bytes(head[8:wide], "little")
    if wide + length > min(size, LONGEST_HEADER):
        raise DamagedFile(f"{what}: the header of its NumPy array claims {length} bytes: truncated?")
    try:
        found = ast.literal_eval(read(start + wide, start + wide + length).decode("latin1"))
        code, fortran, shape = found["descr"], bool(found["fortran_order"]), tuple(found["shape"])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise DamagedFile(f"{what}: the header of its NumPy array is not sound") from None
    dtype = DTYPES.get(code.lstrip("<>|=")) if isinstance(code, str) else None
    first = wide + length
    if dtype is None:
        return Inert(f"numpy array of dtype {code}"), start + size
    place = placed(shape, column_major(shape) if fortran else None, dtype, 0, start + first, size - first, what)
    if isinstance(code, str) and code[0] == ">" and dtype != "bool":
        place = replace(place, big_endian=True)
    return place, start + first + place.nbytes


def column_major(shape: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Strides, in elements, of an array in Fortran's order; None if the shape is no shape (placed() says so)."""
    steps = [1]
    for n in shape[:-1]:
        steps.append(steps[-1] * n if type(n) is int else 0)
    return tuple(steps[: len(shape)])


def number_at(dtype: str, raw: bytes) -> int | float | bool | Inert:
    """One little-endian number of this type; an Inert where Python has no such number or the bytes do not suffice."""
    if len(raw) != ITEMSIZE[dtype] or dtype.startswith(("complex", "float8")):
        return Inert(f"number of dtype {dtype}")
    value = np.frombuffer(raw, np.dtype(NUMPY[dtype]).newbyteorder("<"))
    if dtype == "bfloat16":
        value = (value.astype(np.uint32) << 16).view(np.float32)
    return float(str(value[0])) if dtype in FLOATING else value[0].item()
