"""Saved optimizer directions: Σ d², Σ w·d and Σ √v̂ of every unit, wherever a checkpoint holds the optimizer's state.

One checkpoint's buffer gives the angle of its last step, whatever the distance to the next checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group, Member
from smd_analyze.records.run import Checkpoint, LazyTensor, Run
from smd_analyze.records.statistics import UnitStore
from smd_analyze.statistics import reading
from smd_analyze.statistics.numbers import decode
from smd_analyze.statistics.optimizers import Direction, direction
from smd_analyze.statistics.parallel import in_order
from smd_analyze.statistics.reading import FarFiles, Files
from smd_analyze.statistics.segments import View, rectangles, views
from smd_analyze.statistics.sources import RAW

BLOCK = 256 * 1024  # elements at a time
Slice = Callable[[int, int], np.ndarray]


def measure_directions(
    run: Run,
    groups: Sequence[Group],
    store: UnitStore,
    workers: int,
    tell: Callable[[float, str], None],
    far: FarFiles | None = None,
) -> list[Finding]:
    """Put kind "updates", uu, wu and ss [3, T, units] (ss of Adam only), for every group whose members all have a
    direction somewhere.

    NaN at checkpoints that hold none. Memory: one tensor, or a block of it where its bytes lie raw, and the sums. `far`
    reads the files whose paths are URLs.
    """
    if not any(checkpoint.optimizer_state for checkpoint in run.checkpoints):
        return []
    names = {parameter: name for name, members in run.parameter_groups.items() for parameter in members}
    reasons: dict[str, str] = {}
    with reading.opened(_paths(run, groups), far) as files:
        numbers = {path: number for number, path in enumerate(files.paths)}

        def work(group: Group) -> tuple[np.ndarray, dict[str, str]]:
            sums, why = np.full((3, len(run.checkpoints), group.units), np.nan), {}
            for t, checkpoint in enumerate(run.checkpoints):
                found = _group(checkpoint, group, names, files, numbers)
                if isinstance(found, str):
                    why.setdefault(found, f"{checkpoint.path}: {group.name}")
                elif found is not None:
                    sums[:, t] = found
            return sums, why

        for done, (group, (sums, why)) in enumerate(zip(groups, in_order(work, groups, workers), strict=True)):
            reasons = {**why, **reasons}
            if np.isfinite(sums).any():
                kept = sums if np.isfinite(sums[2]).any() else sums[:2]
                store.put("updates", group.name, group.units, 0, kept)
            tell((done + 1) / len(groups), "reading optimizer states")
        problems = list(files.problems.values())
    return problems + [Finding("direction-unknown", "note", where, text) for text, where in reasons.items()]


def _paths(run: Run, groups: Sequence[Group]) -> dict[str, tuple[int, int] | None]:
    """Every file that weights or states of the groups lie in raw, with its identity."""
    parameters = dict.fromkeys(member.parameter for group in groups for member in group.members)
    paths: dict[str, tuple[int, int] | None] = {}
    for checkpoint in run.checkpoints:
        for parameter in parameters:
            state = checkpoint.optimizer_state.get(parameter)
            if state:
                for tensor in (checkpoint.parameters.get(parameter), *state.values()):
                    if tensor is not None and tensor.extent is not None:
                        paths[tensor.extent.path] = checkpoint.identity.get(tensor.extent.path)
    return paths


def _group(
    checkpoint: Checkpoint, group: Group, names: dict[str, str], files: Files, numbers: dict[str, int]
) -> np.ndarray | str | None:
    """uu, wu and ss [3, units] of a group at one checkpoint; why not, in words; None where there is no state at all."""
    sums = np.zeros((3, group.units))
    for member in group.members:
        weights = checkpoint.parameters.get(member.parameter)
        try:
            found = direction(checkpoint, member.parameter, names.get(member.parameter, group.parameter_group))
            if weights is None or found is None:
                return None
            if isinstance(found, str):
                return found
            if weights.shape != found.first.shape or (found.second and weights.shape != found.second.shape):
                return "the optimizer's state has another shape than the weights"
            seen = _seen(weights, member, group.units)
            if not seen or not all(_add(v, weights, found, files, numbers, sums) for v in seen):
                return None
            if found.second is None:
                sums[2] = np.nan
        except (SmdError, OSError, ValueError, EOFError) as error:
            return f"the optimizer's state cannot be read: {error}"
    return sums


def _seen(weights: LazyTensor, member: Member, units: int) -> tuple[View, ...]:
    if weights.dtype.startswith("complex"):
        return ()
    return views(weights.shape, member, units)


def _add(
    seen: View, weights: LazyTensor, found: Direction, files: Files, numbers: dict[str, int], sums: np.ndarray
) -> bool:
    """Add a member's uu, wu and ss to sums [3, units], block by block. False if a file gave out."""
    from smd_analyze.statistics import kernels  # numba: half a second, for those who measure only

    tensors = [weights, found.first] + ([found.second] if found.second is not None else [])
    readers = [_slices(tensor, files, numbers) for tensor in tensors]
    begin, stop = seen.reach
    while begin < stop:
        end = min(stop, begin + BLOCK)
        arrays = [read(begin, end) for read in readers]
        if any(array.size == 0 for array in arrays):
            return False
        dtype = np.result_type(*arrays)
        w, m, *v = [array.astype(dtype, copy=False) for array in arrays]
        table = [(r.start, r.rows, r.stride, r.units, r.run, r.unit) for r in rectangles(seen, begin, end)]
        if table:
            kernels.add_direction(
                np.array(table, np.int64), w, m, v[0] if v else m, found.scale, found.root, found.eps, sums
            )
        begin = end
    return True


def _slices(tensor: LazyTensor, files: Files, numbers: dict[str, int]) -> Slice:
    """A function that gives elements begin…end of a tensor as floats; an empty array if its file gave out."""
    extent, size = tensor.extent, RAW.get(tensor.dtype)
    if extent is not None and size is not None:
        file = numbers[extent.path]

        def raw(begin: int, end: int) -> np.ndarray:
            buffer = np.empty((end - begin) * size, np.uint8)
            if not files.read(file, extent.offset + begin * size, buffer.data):
                return np.empty(0, np.float32)
            bits = np.uint16 if tensor.dtype == "bfloat16" else np.dtype(tensor.dtype)
            return decode(buffer.view(bits), tensor.dtype, False)

        return raw
    whole = decode(tensor.read(), tensor.dtype, False)
    return lambda begin, end: whole[begin:end]
