"""The rule: what is a clock, at which rate, and what is not one."""

import numpy as np
import polars as pl
import pytest
from clock_candidates import collect
from clock_runs import clocks_of, codes, train

from smd_analyze.clocks.search import find_clocks
from smd_analyze.records.clocks import Candidates

STEPS = tuple(range(0, 401, 50))
RATE = float(-np.log(np.float64(np.float32(1 - 1e-4))))


def held(table, rate):
    """Which intervals hold the rate."""
    low, high = table["decay_per_step_low"].to_numpy(), table["decay_per_step_high"].to_numpy()
    return (low <= rate) & (high >= rate)


def half_width(table):
    return (table["decay_per_step_high"] - table["decay_per_step_low"]).to_numpy() / 2


@pytest.fixture(scope="module")
def run():
    return train(STEPS, 1e-4)


def test_planted_clocks_are_found_and_nothing_else(run):
    found = clocks_of(run, STEPS)
    names = {"head (sum over units)", "emb (unit 3)", "emb (unit 4)"}
    assert set(found.table["clock"]) == names
    assert found.table.height == 3 * (len(STEPS) - 1)
    assert set(found.table["kind"]) == {"moving"}
    assert found.why_none == ""
    assert found.table["decay_per_step"].to_numpy() == pytest.approx(RATE, rel=1e-4)


def test_intervals_hold_the_rate():
    inside = total = 0
    for seed in range(6):
        found = clocks_of(train(STEPS, 1e-4, seed), STEPS).table.filter(pl.col("functional") == "sum over units")
        inside += int(held(found, RATE).sum())
        total += found.height
        assert (half_width(found) < 1e-3 * RATE).all()
    assert inside >= 0.9 * total


def test_a_drop_is_followed():
    found = clocks_of(train(STEPS, lambda t: 1e-4 if t < 200 else 1e-5), STEPS).table
    late = found.filter((pl.col("step_from") >= 200) & (pl.col("functional") == "sum over units"))
    assert late["decay_per_step"].to_numpy() == pytest.approx(-np.log(np.float64(np.float32(1 - 1e-5))), rel=5e-3)


def test_random_walks_are_no_clocks():
    """10,000 candidates and more: steps of one size, steps that fade, with decay and without."""
    looked = 0
    for seed, (fade, decay) in enumerate([(1.0, 0.0), (0.1, 0.0), (0.01, 0.0), (0.5, 1e-3)]):
        rng = np.random.default_rng(seed)
        w = {f"w{i}": rng.standard_normal((48, 24)).astype(np.float32) for i in range(40)}
        saved = []
        for t in range(5):
            saved.append({n: v.copy() for n, v in w.items()})
            step = 1e-3 * fade**t
            w = {n: (v * (1 - decay) + step * rng.standard_normal(v.shape)).astype(np.float32) for n, v in w.items()}
        candidates = collect(saved, kept=2.0)
        looked += len(candidates.found)
        for unit in ("optimizer steps", "epochs"):
            kinds = find_clocks(candidates, tuple(range(0, 500, 100)), unit).table["kind"]
            assert not set(kinds) - {"at most"}  # steps below an ulp leave rows as they are
    assert looked > 10_000


def test_nearly_dead_slices_are_refused_or_right():
    """Rows whose gradient is a fraction of the others', from 1e-1 down to 1e-7: whatever is claimed must hold."""
    rng = np.random.default_rng(1)
    scale = np.logspace(-1, -7, 60)[:, None]
    w = rng.standard_normal((60, 48)).astype(np.float32)
    factor, k = np.float32(1 - 2e-5), 40
    saved = []
    for _ in range(8):
        saved.append({"w": w.copy()})
        for _ in range(k):
            w = w * factor - (2e-3 * scale * rng.standard_normal(w.shape)).astype(np.float32)
    found = clocks_of(saved, tuple(range(0, 8 * k, k))).table
    rate = float(-np.log(np.float64(factor)))
    claimed = {int(name.split()[1]) for name in found["functional"]}
    assert found.height > 20
    assert held(found, rate).mean() > 0.9
    assert min(claimed) > 20  # scale 1e-3 and more is no dead row


def test_adam_with_l2_makes_no_clock_of_what_has_no_gradient():
    """There every element shrinks by η a step, whatever its size: linear, and η/|w| is no decay rate."""
    rng = np.random.default_rng(2)
    w = rng.standard_normal((12, 32)).astype(np.float32)
    gain = np.full(32, 1.0, np.float32)  # equal elements keep their direction even so
    saved = []
    for _ in range(7):
        saved.append({"w": w.copy(), "gain": gain.copy()})
        for _ in range(20):
            g = np.sign(w) * np.float32(1e-5)
            g[:8] += (1e-3 * rng.standard_normal((8, 32))).astype(np.float32)
            w, gain = w - g, gain - np.float32(1e-5)
    assert clocks_of(saved, tuple(range(0, 140, 20))).table.is_empty()


def test_equal_elements_need_a_witness(run):
    """A gain that began at one everywhere and has no gradient is a clock if another tensor shows the same rate."""
    gain = np.ones(16, np.float32)
    saved = []
    for step, tensors in zip(STEPS, run, strict=True):
        saved.append({**tensors, "gain": gain * np.float32((1 - 1e-4) ** step)})
    assert "gain (whole)" in set(clocks_of(saved, STEPS).table["clock"])
    other = [{**s, "gain": gain * np.float32((1 - 3e-4) ** t)} for t, s in zip(STEPS, run, strict=True)]
    assert "gain (whole)" not in set(clocks_of(other, STEPS).table["clock"])


def test_one_interval_needs_two_tensors():
    """If bits do not prove it alone: the rate moves within the interval."""
    run = train(STEPS, lambda t: 1e-4 * (0.9 + 0.2 * (t % 50) / 50))
    two = [run[2], run[4]]
    found = clocks_of(two, (100, 200))
    assert set(found.table["parameter"]) == {"head", "emb"}
    without = [{n: v for n, v in s.items() if n != "head"} for s in two]
    alone = clocks_of(without, (100, 200))
    assert alone.table.is_empty()
    assert "emb (unit 3), emb (unit 4) may, but with two checkpoints another tensor" in alone.why_none


def test_one_interval_that_is_reproduced_in_every_bit_needs_no_other(run):
    found = clocks_of([{"emb": run[t]["emb"]} for t in (2, 4)], (100, 200))
    assert found.table["clock"].to_list() == ["emb (unit 3)", "emb (unit 4)"]
    assert found.table["decay_per_step"].to_numpy() == pytest.approx(RATE, rel=1e-9)
    assert found.table["evidence"].str.contains("reproduced in every bit over 100 steps").all()


def test_a_long_interval_holds_its_clock():
    """Saved every thousand updates at 5e-3: a factor of 150."""
    found = clocks_of(train((0, 1000, 2000), 5e-3), (0, 1000, 2000))
    assert set(found.table["clock"]) >= {"emb (unit 3)", "emb (unit 4)"}
    true = -np.log(np.float32(1 - 5e-3))
    rows = found.table.filter(pl.col("parameter") == "emb")
    assert rows["decay_per_step"].to_numpy() == pytest.approx(true, rel=1e-6)
    low, high = (found.table[f"decay_per_step{end}"].to_numpy() for end in ("_low", "_high"))
    assert ((low <= true) & (true <= high)).all()


def test_a_sum_is_read_until_little_of_it_is_left():
    """Rounding turns what is left of it more and more, but no more than rounding can; then it is spent."""
    steps = tuple(range(0, 16_001, 800))
    found = clocks_of(train(steps, 1e-3), steps).table.filter(pl.col("parameter") == "head")
    assert 6000 < found["step_to"].max() < 16_000
    true = -np.log(np.float32(1 - 1e-3))
    low, high = (found[f"decay_per_step{end}"].to_numpy() for end in ("_low", "_high"))
    assert ((low <= true) & (true <= high)).mean() >= 0.9


def test_two_tensors_that_disagree_confirm_nothing():
    """In one interval, a head at one rate and rows at another: neither is claimed."""
    run = train(STEPS, lambda t: 1e-4 * (0.9 + 0.2 * (t % 50) / 50))
    last = {**run[4], "emb": run[6]["emb"]}
    assert clocks_of([run[2], last], (100, 200)).table.is_empty()


def test_one_holding_interval_is_not_enough():
    """A row that has no gradient in one interval only."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((12, 32)).astype(np.float32)
    saved = []
    for i in range(6):
        saved.append({"w": w.copy()})
        for _ in range(30):
            g = (1e-3 * rng.standard_normal(w.shape)).astype(np.float32)
            g[5] *= i != 2
            w = w * np.float32(1 - 1e-4) - g
    assert clocks_of(saved, tuple(range(0, 180, 30))).table.is_empty()


def test_intervals_of_one_step_do_not_break_a_clock():
    """Checkpoints in pairs of consecutive steps: the short intervals are too short to show decay."""
    steps = (0, 50, 51, 100, 101, 150, 151)
    found = clocks_of(train(steps, 2e-6, seed=4), steps)
    assert "emb (unit 3)" in set(found.table["clock"])


def test_no_decay_is_a_result_of_sums(run):
    found = clocks_of(train(STEPS, 0.0), STEPS)
    head = found.table.filter(pl.col("parameter") == "head")
    assert set(head["kind"]) == {"no decay"}
    assert (head["decay_per_step_low"] < 2e-8).all()
    assert codes(found) == ["no-decay"]
    assert found.why_none == ""


def test_constant_slices_only_bound_the_decay():
    found = clocks_of(train(STEPS, 0.0), STEPS).table.filter(pl.col("parameter") == "emb")
    assert set(found["kind"]) == {"at most"}
    assert set(found["functional"]) == {"unit 3"}  # one speaks for both
    assert ((found["decay_per_step_high"] > 2.0**-25) & (found["decay_per_step_high"] < 2.0**-24)).all()


def test_constant_slices_of_coarse_numbers_bound_nothing():
    """Weights that lie on bfloat16's grid are constant at any decay below 2^-9, whatever type they are saved in."""
    saved = train(STEPS, 0.0)
    grid = [{"emb": (s["emb"].view(np.uint32) & 0xFFFF0000).view(np.float32)} for s in saved]
    assert clocks_of(grid, STEPS).table.is_empty()


def test_no_unknown_step_counts_in_a_bound():
    assert clocks_of(train(STEPS, 0.0), STEPS, "epochs").table.filter(pl.col("parameter") == "emb").is_empty()


def test_slices_of_a_summed_axis_are_demoted(run):
    """A class that never occurs: its row moves slowly, but not without gradient."""
    saved = []
    for step, s in zip(STEPS, run, strict=True):
        head = s["head"].copy()
        head[7] = run[0]["head"][7] * np.float32((1 - 0.9e-4) ** step)
        head[0] += s["head"].sum(0) - head.sum(0)  # the sum stays what it was
        saved.append({"head": head})
    assert set(clocks_of(saved, STEPS).table["functional"]) == {"sum over units"}


def test_epochs_widen_what_roundings_may_do():
    """Where no number of updates reproduces the bits."""
    run = train(STEPS, lambda t: 1e-4 * (0.9 + 0.2 * (t % 50) / 49))
    known = clocks_of(run, STEPS).table.filter(pl.col("parameter") == "emb")
    saves = tuple(range(1, len(STEPS) + 1))
    unknown = clocks_of(run, saves, "epochs").table.filter(pl.col("parameter") == "emb")
    assert unknown["decay_per_step"].to_numpy() == pytest.approx(50 * RATE, rel=1e-3)
    assert (half_width(unknown) >= 1.96 * 1.25 * 2.0**-30 * 10_000 * 0.99).all()
    assert known.height == unknown.height


def test_sixteen_bit_copies_show_the_sum():
    """bfloat16 copies of fp32 weights: a sum that is not small against its terms survives."""
    rng, factor = np.random.default_rng(7), float(np.float32(1 - 2e-3))
    direction = 0.3 * rng.standard_normal(256)
    saved = []
    for t in STEPS:
        noise = 0.1 * rng.standard_normal((10, 256))
        saved.append({"head": _bf16(noise - noise.mean(0) + direction * factor**t)})
    found = find_clocks(collect(saved, "bfloat16"), STEPS).table
    assert set(found["functional"]) == {"sum over units"}
    rate = float(-np.log(factor))
    assert held(found, rate).mean() > 0.8
    assert find_clocks(collect(saved, "float8_e4m3fn"), STEPS).table.is_empty()  # too coarse to be read


def _bf16(x):
    bits = np.float32(x).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_a_rate_under_the_resolution_is_a_bound():
    """A sum may still shrink where single fp32 weights hardly can: 2e-8 a step is said to be at most 3e-8."""
    rng = np.random.default_rng(5)
    base, direction = rng.standard_normal((10, 64)), rng.standard_normal(64)
    steps = tuple(range(0, 500_001, 100_000))
    saved = []
    for i, t in enumerate(steps):
        noise = np.random.default_rng(i).standard_normal((10, 64))
        w = base + noise - (base + noise).mean(0) + direction * np.exp(-2e-8 * t)
        saved.append({"head": w.astype(np.float32)})
    found = clocks_of(saved, steps).table
    assert set(found["kind"]) == {"at most"}
    assert (found["decay_per_step_low"] == 0).all()
    assert (found["decay_per_step_high"] >= 3e-8).all()
    assert found["decay_per_step"].to_numpy() == pytest.approx(2e-8, rel=0.05)


def test_spent_sums_and_collapsed_slices_are_none():
    rng = np.random.default_rng(6)
    saved = []
    for t in range(6):
        w = rng.standard_normal((10, 32))
        w -= w.mean(0) - 1e-9 * np.exp(-1e-2 * t) * np.arange(1, 33)
        w[4] = 1e-15 * np.exp(-1e-2 * t) * np.arange(1, 33)
        saved.append({"head": w})
    assert clocks_of(saved, tuple(range(0, 600, 100))).table.is_empty()


def test_nothing_to_look_at():
    assert find_clocks(Candidates(), (0, 100)).table.is_empty()
    assert "there is one" in find_clocks(Candidates(), (0,)).why_none
    assert find_clocks(Candidates(), (0,)).table.schema["evidence"] == pl.String


def test_tensors_that_come_and_go(run):
    """A checkpoint lacks the head: the intervals beside it are left out, the rest stays."""
    candidates = collect(run)
    for c in candidates.found:
        if c.parameter == "head":
            c.values[3] = np.nan
            c.tensor_vv[3] = c.tensor_dd[3] = c.tensor_dd[4] = np.nan
    found = find_clocks(candidates, STEPS).table.filter(pl.col("parameter") == "head")
    assert found["step_from"].to_list() == [0, 50, 200, 250, 300, 350]


def test_why_none_names_what_was_looked_for(run):
    """Adam-like: sums of many rows move as all else, and no row is unused."""
    saved = [{"hidden": s["hidden"], "layer": s["head"][:, :16] + s["emb"][:10, :16]} for s in run]
    found = clocks_of(saved, STEPS)
    assert found.table.is_empty()
    assert "of 4 sums and 82 slices" in found.why_none
    assert "sums feel a gradient" in found.why_none
    assert "no row, column or tap is without gradient" in found.why_none
