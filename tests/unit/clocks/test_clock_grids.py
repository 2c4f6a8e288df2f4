"""16-bit weights that are saved in 32 bits: what rounding may do is that of the grid."""

import numpy as np
import polars as pl
import pytest
from clock_candidates import collect
from clock_runs import train

from smd_analyze.clocks.grids import true_types
from smd_analyze.clocks.search import find_clocks

STEPS = tuple(range(0, 2401, 300))
DECAY = 5e-4
RATE = float(-np.log(np.float64(np.float32(1 - DECAY))))


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.fixture(scope="module")
def run():
    return train(STEPS, DECAY, width=64, noise=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_grid_is_seen_in_sums_and_slices(run, dtype):
    candidates = collect([{n: rounded(v, dtype) for n, v in s.items()} for s in run], kept=2.0)
    assert {c.kind for c in candidates.found} == {"sum", "slice"}
    assert {c.dtype for c in true_types(candidates.found)} == {dtype}
    sums = [c for c in candidates.found if c.kind == "sum"]  # no slice beside them tells
    assert {c.dtype for c in true_types(sums)} <= {dtype, "bfloat16"}  # small numbers are coarse in float16, too


def test_weights_of_fp32_stay_so(run):
    candidates = collect(run, kept=2.0)
    assert true_types(candidates.found) == candidates.found


def test_zeros_and_ones_are_on_every_grid():
    candidates = collect([{"b": np.full(16, value, np.float32)} for value in (1.0, 0.5, 0.25)])
    assert [c.dtype for c in true_types(candidates.found)] == ["float32"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_clock_is_found_and_its_intervals_hold(run, dtype):
    saved = [{n: rounded(v, dtype) for n, v in s.items()} for s in run]
    wide, narrow = (find_clocks(collect(saved, t), STEPS) for t in ("float32", dtype))
    assert wide.table.equals(narrow.table)
    moving = wide.table.filter(pl.col("kind") == "moving")
    assert moving.height >= 8
    held = (moving["decay_per_step_low"] <= RATE) & (moving["decay_per_step_high"] >= RATE)
    assert held.mean() >= 0.9


def test_why_none_names_the_grid(run):
    saved = [{"hidden": rounded(s["hidden"], "bfloat16")} for s in run]
    found = find_clocks(collect(saved), STEPS)
    assert found.table.is_empty()
    assert "lie on bfloat16's grid, although they are saved wider" in found.why_none
