"""measure(): the one pass over the plan. It knows workers, devices and memory, no formulas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from smd_analyze.errors import UsageError
from smd_analyze.records.group import Group
from smd_analyze.records.run import Run
from smd_analyze.records.statistics import Statistics, UnitSeries, UnitStore
from smd_analyze.statistics import findings, reading, tables
from smd_analyze.statistics.candidates import candidates
from smd_analyze.statistics.collecting import collector
from smd_analyze.statistics.directions import measure_directions
from smd_analyze.statistics.lags import lags_table
from smd_analyze.statistics.normalizers import normalizers
from smd_analyze.statistics.parallel import in_order
from smd_analyze.statistics.plan import CHUNK, Item, Plan, items, make_plan
from smd_analyze.statistics.reading import FAR_READERS, FarFiles, Files, is_far
from smd_analyze.statistics.samples import samples
from smd_analyze.statistics.saved_types import saved_shapes, saved_types
from smd_analyze.statistics.second_look import second_look
from smd_analyze.statistics.sums import ChunkSums, Scratch, sum_item

Progress = Callable[[float, str], None]
Summer = Callable[[Item], ChunkSums]
DEVICE_CHUNK = 32 * 1024 * 1024
FAR_CHUNK = 2 * 1024 * 1024  # bytes that one request asks for
DEVICE_PAYS = 20e9  # bytes from which "auto" looks for a GPU


def measure(
    run: Run,
    groups: tuple[Group, ...],
    store: UnitStore,
    *,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
    chunk_bytes: int | None = None,
    far: FarFiles | None = None,
) -> Statistics:
    """Norms and angles of every group at every checkpoint: every byte is read once, in bounded memory.

    Args:
        run: the checkpoints, in the order of training.
        groups: what is analysed.
        store: takes each unit's sums, kind "weights": vv, dd, dv [3, T, units] as in UnitSeries, NaN where a checkpoint
            lacks the tensor; kind "updates": uu, wu and, of Adam, ss [2 or 3, T, units] where an optimizer's
            direction was saved.
        device: "cpu", "cuda", or "auto": the CPU, unless there is much to do and a GPU.
        workers: threads that read and add.
        progress: called with (fraction done, what is being done).
        chunk_bytes: size of the pieces that are read; None chooses it for the device.
        far: reads the files whose paths are URLs.

    `candidates` for decay clocks come from the same pass: sums over and within units, biases and gains. Only slices
    that kept their direction, as a sample of their elements has it, are read once more. `lags` compares checkpoints
    further apart by a sample of every tensor's elements (statistics/sampling.py), neighbours exactly.
    A file that cannot be read gives nulls at its checkpoint and a finding; the rest goes on.
    Raises: UsageError if a device is asked for that is not there.
    """
    tell = progress or (lambda _done, _what: None)
    place = choose_device(device, sum(4 * group.numel for group in groups) * len(run.checkpoints))
    distant = any(is_far(path) for checkpoint in run.checkpoints for path in checkpoint.identity)
    usual = DEVICE_CHUNK if place != "cpu" else FAR_CHUNK if distant else CHUNK
    plan = make_plan(run, groups, chunk_bytes or usual)
    workers = max(1, workers, FAR_READERS if distant and place == "cpu" else 1)
    gather, sampled = collector(plan, groups, len(run.checkpoints), store), samples(plan)
    total = plan.nbytes or 1
    done = 0
    share = 0.6 if any(checkpoint.optimizer_state for checkpoint in run.checkpoints) else 1.0
    known = {path: size for c in run.checkpoints for path, size in c.identity.items()}
    with reading.opened({path: known.get(path) for path in plan.found.paths}, far) as files:
        tell(0.0, "reading checkpoints (the first run on a machine compiles for some seconds)")
        for result in _results(plan, _summers(place, files, workers)):
            gather.add(result)
            sampled.add(result)
            done += result.item.chunk.nbytes * (result.item.end - result.item.begin)
            tell(share * min(1.0, done / total), f"measured {done / 1e9:.2f} of {total / 1e9:.2f} GB")
        screened, sources = gather.ledger.screened, plan.found.sources
        slices = second_look(screened, sources, files, workers, lambda: tell(share, "looking for decay clocks"))
        files.check_again()
    about_updates = measure_directions(
        run, groups, store, workers, lambda done, what: tell(share + (1 - share) * done, what), far
    )
    totals = gather.totals
    spoilt = tables.blank_files(plan, files, totals)
    found = findings.about(run, groups, totals)
    steps = tuple(checkpoint.step for checkpoint in run.checkpoints)
    return Statistics(
        steps=steps,
        groups=groups,
        table=tables.statistics_table(steps, groups, totals),
        units=_reader(steps, groups, store, spoilt),
        findings=tuple(dict.fromkeys([*plan.found.findings, *files.problems.values(), *found, *about_updates])),
        device=place,
        dtypes=saved_types(run, groups),
        candidates=candidates(screened, slices, sources, files),
        shapes=saved_shapes(run, groups),
        lags=lags_table(steps, groups, totals, sampled, spoilt),
        normalizers=normalizers(run, groups),
    )


def choose_device(device: str, nbytes: int) -> str:
    """Where to add up so many bytes: "cpu" or "cuda". torch is not even imported for little work.

    Raises: UsageError for a device that is not there.
    """
    if device == "cpu" or (device == "auto" and (nbytes < DEVICE_PAYS or not _driver())):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise UsageError(f"device {device!r} is not known: choose auto, cpu or cuda")
    import torch  # seconds to import

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise UsageError("device cuda was asked for, but torch sees no CUDA GPU here: use --device cpu (or auto)")
    return "cpu"


def _driver() -> bool:
    """Is there a sign of an NVIDIA driver? Asking torch costs seconds and 200 MB."""
    return os.name == "nt" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))


def _summers(place: str, files: Files, workers: int) -> list[Summer]:
    """One function per worker, with buffers of its own."""
    if place == "cpu":
        return [partial(sum_item, files=files, scratch=Scratch()) for _ in range(workers)]
    from smd_analyze.statistics import sums_torch

    return [partial(sums_torch.sum_item, files=files, mine=sums_torch.ring(place)) for _ in range(workers)]


def _results(plan: Plan, summers: Sequence[Summer]) -> Iterator[ChunkSums]:
    """The items' sums in the plan's order, whoever made them."""
    idle: SimpleQueue[Summer] = SimpleQueue()
    for summer in summers:
        idle.put(summer)

    def work(item: Item) -> ChunkSums:
        summer = idle.get()
        try:
            return summer(item)
        finally:
            idle.put(summer)

    return in_order(work, items(plan), len(summers))


def _reader(
    steps: tuple[int, ...], groups: Sequence[Group], store: UnitStore, spoilt: dict[int, np.ndarray]
) -> Callable[[str], UnitSeries]:
    """The `units` of a Statistics. `spoilt`: group → checkpoints [T] whose file changed after they were stored."""
    numbers = {group.name: number for number, group in enumerate(groups)}

    def units(name: str) -> UnitSeries:
        if name not in numbers:
            raise UsageError(f"no per-unit series of {name!r}; there are {', '.join(list(numbers)[:8])}")
        sums = store.get("weights", name)
        if sums is None:  # a group that could not be measured
            sums = np.full((3, len(steps), groups[numbers[name]].units), np.nan)
        vv, dd, dv = sums
        updates = store.get("updates", name)
        bad = spoilt.get(numbers[name])
        if bad is not None:
            vv, dd, dv = vv.copy(), dd.copy(), dv.copy()
            vv[bad] = np.nan
            dd[1:][bad[1:] | bad[:-1]] = np.nan
            dv[1:][bad[1:] | bad[:-1]] = np.nan
        return UnitSeries(name, np.array(steps), vv, dd, dv, *(updates if updates is not None else (None, None)))

    return units
