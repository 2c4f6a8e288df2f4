"""Children of engine.py: the statistics stage alone, and the same readers and threads without the arithmetic.

Usage: python stage.py read|measure|again FOLDER WORKERS RESULT.npz; prints the seconds of the stage itself (`again`: of
its second time in one process, when numba is loaded).
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from smd_analyze import analysis
from smd_analyze.statistics import reading, streaming
from smd_analyze.statistics.plan import items, make_plan
from smd_analyze.statistics.sums import Scratch, fetch_raw
from smd_analyze.storage.units import open_store


def read(run, groups, workers: int) -> None:
    """Every byte that the pass reads, in its order and into its buffers."""
    plan = make_plan(run, groups)
    with reading.opened(dict.fromkeys(plan.found.paths)) as files:

        def portion(number: int) -> None:
            scratch = Scratch()
            for item in islice(items(plan), number, None, workers):
                scratch.fit(item.chunk)
                for t in range(item.begin, item.end):
                    fetch_raw(item.chunk, files, scratch, t, t & 1)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(portion, range(workers)))
    assert not files.problems


def main(what: str, folder: str, workers: int, result: str) -> None:
    run = analysis.load_run(folder)
    groups = analysis.find_groups(run).groups
    if what == "read":
        began = time.perf_counter()
        read(run, groups, workers)
        print(time.perf_counter() - began)
        return
    if what == "again":
        streaming.measure(run, groups, open_store(None), device="cpu", workers=workers)
    began = time.perf_counter()
    stats = streaming.measure(run, groups, open_store(None), device="cpu", workers=workers)
    print(time.perf_counter() - began)
    names = [group.members[0].parameter for group in groups if len(group.members) == 1]
    tables = [stats.table.filter(group=group.name) for group in groups if len(group.members) == 1]
    norms = [table["weight_norm"].to_numpy() for table in tables]
    angles = [table["angle"].to_numpy()[1:] for table in tables]
    np.savez(result, names=names, norms=norms, angles=angles)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
