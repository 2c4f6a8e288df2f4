"""Runs made by hand: safetensors files, and where each tensor lies in them, read from the header."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from smd_analyze.records.group import Group, Member
from smd_analyze.records.run import Checkpoint, Extent, LazyTensor, Run, Setting

Arrays = Mapping[str, np.ndarray]
SHORT = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


class Memory:
    """A UnitStore that keeps what it is given, and notes how it came."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], np.ndarray] = {}
        self.puts: list[tuple[str, str, int, tuple[int, ...]]] = []

    def put(self, kind: str, group: str, units: int, first_unit: int, sums: np.ndarray) -> None:
        whole = self.kept.setdefault((kind, group), np.full((*sums.shape[:2], units), -7.0))
        whole[:, :, first_unit : first_unit + sums.shape[2]] = sums
        self.puts.append((kind, group, first_unit, sums.shape))

    def get(self, kind: str, group: str) -> np.ndarray | None:
        return self.kept.get((kind, group))


def to_bits(array: np.ndarray) -> np.ndarray:
    """float32 to the bits of bfloat16, cut off."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bits(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write(path: Path, arrays: Arrays, dtypes: Mapping[str, str] | None = None) -> dict[str, LazyTensor]:
    """Write a safetensors file; its tensors with their extents. `dtypes` names those that numpy has no word for."""
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": SHORT[named(array, name, dtypes)],
            "shape": array.shape,
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in arrays.values()))
    start = 8 + len(text)
    return {
        name: LazyTensor(
            shape=array.shape,
            dtype=named(array, name, dtypes),
            read=array.copy,
            extent=Extent(str(path), start + header[name]["data_offsets"][0], array.nbytes),
        )
        for name, array in arrays.items()
    }


def named(array: np.ndarray, name: str, dtypes: Mapping[str, str] | None) -> str:
    return (dtypes or {}).get(name, str(array.dtype))


def checkpoint(
    step: int,
    path: Path | str,
    tensors: Mapping[str, LazyTensor],
    settings: Sequence[Setting] = (),
    state: Mapping[str, Mapping[str, LazyTensor]] | None = None,
) -> Checkpoint:
    identity = {}
    if Path(path).exists():
        status = Path(path).stat()
        identity = {str(path): (status.st_size, status.st_mtime_ns)}
    return Checkpoint(
        step,
        str(path),
        "safetensors",
        "plain",
        tensors,
        tuple(settings),
        identity=identity,
        optimizer_state=state or {},
    )


def run_of(checkpoints: Sequence[Checkpoint]) -> Run:
    return Run("run", tuple(checkpoints), "file names", "optimizer steps")


def write_run(folder: Path, history: Sequence[Arrays], dtypes: Mapping[str, str] | None = None) -> Run:
    """One file per entry of `history`, at steps 0, 10, 20, …"""
    made = []
    for t, arrays in enumerate(history):
        path = folder / f"step{10 * t:04d}.safetensors"
        made.append(checkpoint(10 * t, path, write(path, arrays, dtypes)))
    return run_of(made)


def in_memory(arrays: Arrays, dtypes: Mapping[str, str] | None = None) -> dict[str, LazyTensor]:
    """Tensors that do not lie raw anywhere."""
    return {n: LazyTensor(a.shape, (dtypes or {}).get(n, str(a.dtype)), a.copy) for n, a in arrays.items()}


def group_of(name: str, members: Sequence[tuple[str, int, int, int]], units: int, numel: int) -> Group:
    made = tuple(Member(*member) for member in members)
    return Group(name, made, "invariant", "unit", units, numel, "", "guessed", "linear", "test")


def blocks(array: np.ndarray, axis: int, start: int, stop: int, units: int) -> np.ndarray:
    """[units, elements] float64: the reference way to cut a member into its units."""
    part = np.moveaxis(array, axis, 0)[start:stop].astype(np.float64)
    return part.reshape(units, -1)


def reference(history: Sequence[Arrays], members: Sequence[tuple[str, int, int, int]], units: int) -> np.ndarray:
    """vv, dd, dv [3, T, units] by numpy in float64; row 0 of dd and dv is NaN."""
    whole = [np.concatenate([blocks(h[p], a, i, j, units) for p, a, i, j in members], axis=1) for h in history]
    sums = np.full((3, len(whole), units), np.nan)
    for t, v in enumerate(whole):
        sums[0, t] = (v * v).sum(1)
        if t:
            d = v - whole[t - 1]
            sums[1, t], sums[2, t] = (d * d).sum(1), (d * v).sum(1)
    return sums


def kahan(u: np.ndarray, v: np.ndarray) -> float:
    """The angle of two vectors, 2 atan2(‖û−v̂‖, ‖û+v̂‖)."""
    u, v = u.ravel().astype(np.float64), v.ravel().astype(np.float64)
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return 2 * float(np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))
