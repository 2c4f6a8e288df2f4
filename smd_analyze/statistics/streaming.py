"""measure(): the one pass over the plan. It knows workers, devices and memory, no formulas."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from smd_analyze.errors import UsageError
from smd_analyze.records.group import Group
from smd_analyze.records.run import Run
from smd_analyze.records.statistics import Statistics, UnitSeries, UnitStore
from smd_analyze.statistics import findings, reading, tables
from smd_analyze.statistics.collecting import collector
from smd_analyze.statistics.plan import CHUNK, Item, Plan, make_plan
from smd_analyze.statistics.reading import Files
from smd_analyze.statistics.sums import ChunkSums, Scratch, sum_item

Progress = Callable[[float, str], None]


def measure(
    run: Run,
    groups: tuple[Group, ...],
    store: UnitStore,
    *,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
    chunk_bytes: int = CHUNK,
) -> Statistics:
    """Norms and angles of every group at every checkpoint: every byte is read once, in bounded memory.

    Args:
        run: the checkpoints, in the order of training.
        groups: what is analysed.
        store: takes each unit's sums, kind "weights": vv, dd, dv [3, T, units] as in UnitSeries, NaN where a checkpoint
            lacks the tensor; kind "updates": uu, wu [2, T, units] where an optimizer's direction was saved.
        device: "cpu", "cuda", or "auto": the CPU, unless there is much to do and a GPU.
        workers: threads that read and add.
        progress: called with (fraction done, what is being done).
        chunk_bytes: size of the pieces that are read.

    A file that cannot be read gives nulls at its checkpoint and a finding; the rest goes on.
    Raises: UsageError if a device is asked for that is not there.
    """
    tell = progress or (lambda _done, _what: None)
    plan = make_plan(run, groups, chunk_bytes)
    summer = _summer(device)
    gather = collector(plan, groups, len(run.checkpoints), store)
    total = sum(item.chunk.nbytes * (item.end - item.begin) for item in plan.items) or 1
    done = 0
    known = {path: size for c in run.checkpoints for path, size in c.identity.items()}
    with reading.opened({path: known.get(path) for path in plan.paths}) as files:
        tell(0.0, "reading checkpoints (the first run on a machine compiles for some seconds)")
        for result in _results(plan, files, summer, max(1, workers)):
            gather.add(result)
            done += result.item.chunk.nbytes * (result.item.end - result.item.begin)
            tell(done / total, f"measured {done / 1e9:.2f} of {total / 1e9:.2f} GB")
        files.check_again()
    totals = gather.totals
    spoilt = tables.blank_files(plan, files, totals)
    steps = tuple(checkpoint.step for checkpoint in run.checkpoints)
    return Statistics(
        steps=steps,
        groups=groups,
        table=tables.statistics_table(steps, groups, totals),
        units=_reader(steps, groups, store, spoilt),
        findings=(*plan.findings, *files.problems.values(), *findings.about(run, groups, totals)),
    )


Summer = Callable[[Item, Files, Scratch], ChunkSums]


def _summer(device: str) -> Summer:
    return sum_item


def _results(plan: Plan, files: Files, summer: Summer, workers: int) -> Iterator[ChunkSums]:
    """The items' sums in the plan's order; at most a few are ahead of the one that is taken."""
    scratches: SimpleQueue[Scratch] = SimpleQueue()
    for _ in range(workers):
        scratches.put(Scratch())

    def work(item: Item) -> ChunkSums:
        scratch = scratches.get()
        try:
            return summer(item, files, scratch)
        finally:
            scratches.put(scratch)

    if workers == 1:
        yield from map(work, plan.items)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[ChunkSums]] = deque()
        for item in plan.items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


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
