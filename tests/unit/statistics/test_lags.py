"""Angles between far checkpoints: which pairs, from which elements, and the same numbers however the pass is cut."""

import numpy as np
import pytest
from handmade_runs import Memory, checkpoint, group_of, in_memory, run_of, to_bits, write_run
from test_sums_torch import both

from smd_analyze.statistics import plan, sampling
from smd_analyze.statistics.samples import windows
from smd_analyze.statistics.streaming import measure

GROUPS = (
    group_of("whole", [("a", 0, 0, 12)], 12, 12 * 40),
    group_of("columns", [("a", 1, 4, 36)], 8, 12 * 32),
    group_of("joint", [("b", 1, 0, 6), ("a", 0, 0, 12)], 3, 180 + 480),
)


def history(count, seed=1, step=0.1):
    random = np.random.default_rng(seed)
    now = {"a": random.normal(size=(12, 40)), "b": random.normal(size=(5, 6, 6))}
    made = []
    for _ in range(count):
        made.append({name: array.astype(np.float32) for name, array in now.items()})
        now = {name: 0.99 * array + step * random.normal(size=array.shape) for name, array in now.items()}
    return made


def parts(values):
    """Elements of each group, float64."""
    a, b = values["a"].astype(float), values["b"].astype(float)
    return {"whole": a.ravel(), "columns": a[:, 4:36].ravel(), "joint": np.concatenate([b.ravel(), a.ravel()])}


def angle(u, v):
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))


@pytest.mark.parametrize("count", [4, 5, 20, 65, 66, 129, 130, 700])
def test_pairs_are_powers_of_two_apart_and_end_at_the_last_checkpoint(count):
    found, moments = windows(count), sampling.kept(count)
    assert len(moments) <= sampling.MOMENTS + 1
    spacing = moments[1] - moments[0]
    assert (spacing & (spacing - 1)) == 0
    assert spacing == 1 or count - 1 > sampling.MOMENTS * spacing / 2
    lags = np.unique(found[:, 2])
    assert lags[0] == 1
    assert lags[-1] * 2 <= count < lags[-1] * 4
    assert ((lags & (lags - 1)) == 0).all()
    assert (found[:, 1] - found[:, 0] == found[:, 2]).all()
    for lag in lags:
        pairs = found[found[:, 2] == lag]
        assert pairs[-1, 1] == count - 1
        assert (pairs[1:, 0] >= pairs[:-1, 1]).all()
        assert len(pairs) <= 32
    assert np.isin(found[found[:, 2] > 1, :2], moments).all()


def test_few_checkpoints_have_no_far_ones():
    assert windows(3).shape == (0, 3)
    assert measure(run_of([checkpoint(t, f"m{t}", in_memory(h)) for t, h in enumerate(history(3))]), GROUPS,
                   Memory()).lags.height == 0  # fmt: skip


def test_samples_lie_one_in_each_stretch():
    few, many = sampling.positions(10), sampling.positions(1_000_003)
    assert few.tolist() == list(range(10))
    assert len(many) == sampling.MOST
    edges = np.arange(sampling.MOST + 1) * 1_000_003 // sampling.MOST
    assert ((many >= edges[:-1]) & (many < edges[1:])).all()
    assert len(np.unique(many % 9)) == 9  # not always the same place of a filter
    assert np.unique(np.diff(many)).size > 100
    assert len(sampling.positions(1_000_003, 3)) == 3 * sampling.MOST


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_small_groups_are_compared_exactly(tmp_path, dtype):
    values = history(9)
    as_saved = [{n: to_bits(x) if dtype == "bfloat16" else x.astype(dtype) for n, x in v.items()} for v in values]
    if dtype == "bfloat16":
        values = [{n: (to_bits(x).astype(np.uint32) << 16).view(np.float32) for n, x in v.items()} for v in values]
    run = write_run(tmp_path, as_saved, dict.fromkeys("ab", dtype))
    table = measure(run, GROUPS, Memory()).lags
    assert set(table["group"]) == {"whole", "columns", "joint"}
    assert set(table["lag"]) == {1, 2, 4}
    steps = [c.step for c in run.checkpoints]
    for row in table.iter_rows(named=True):
        u, v = (parts(values[steps.index(row[end])])[row["group"]] for end in ("step_from", "step_to"))
        assert row["angle"] == pytest.approx(angle(u, v), rel=1e-6)
        assert row["retention"] == pytest.approx(u @ v / (u @ u), rel=1e-6)
        assert row["elements"] == len(u)


def test_small_angles_keep_their_digits(tmp_path):
    random = np.random.default_rng(0)
    start = random.normal(size=(12, 40))
    values = [{"a": start * (1 + 0.01 * t) + 1e-5 * random.normal(size=start.shape)} for t in range(9)]
    table = measure(write_run(tmp_path, values, {"a": "float64"}), GROUPS[:1], Memory()).lags
    steps = sorted({*table["step_from"], *table["step_to"]})
    for row in table.filter(table["lag"] == 4).iter_rows(named=True):
        u, v = (values[steps.index(row[end])]["a"].ravel() for end in ("step_from", "step_to"))
        assert row["angle"] == pytest.approx(angle(u, v), rel=1e-5)
        assert 1e-5 < row["angle"] < 1e-4


@pytest.mark.parametrize("chunk_bytes", [100, 500, 4000])
def test_the_same_numbers_however_the_pass_is_cut(tmp_path, chunk_bytes, monkeypatch):
    monkeypatch.setattr(sampling, "MOST", 50)
    sampling.positions.cache_clear()
    run = write_run(tmp_path, history(40))
    expected = measure(run, GROUPS, Memory(), workers=1).lags
    assert expected.filter(expected["lag"] > 1)["elements"].max() < 480
    monkeypatch.setattr(plan, "SUMS", 2000)
    found = measure(run, GROUPS, Memory(), workers=3, chunk_bytes=chunk_bytes).lags
    assert found.drop("angle", "retention").equals(expected.drop("angle", "retention"))
    for name in ("angle", "retention"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10)
    sampling.positions.cache_clear()


def test_tensors_that_must_be_asked_equal_those_that_lie_raw(tmp_path):
    values = history(12)
    asked = measure(run_of([checkpoint(10 * t, f"m{t}", in_memory(h)) for t, h in enumerate(values)]), GROUPS, Memory())
    raw = measure(write_run(tmp_path, values), GROUPS, Memory())
    for name in ("angle", "retention"):
        np.testing.assert_allclose(asked.lags[name], raw.lags[name], rtol=1e-9)


def test_the_device_keeps_the_same_sample(tmp_path):
    run = write_run(tmp_path, history(12))
    pairs = both(run, 500)
    assert any(mine.seen is not None for mine, _ in pairs)
    for mine, other in pairs:
        if mine.seen is not None:
            np.testing.assert_array_equal(mine.seen.rows, other.seen.rows)
            np.testing.assert_array_equal(mine.seen.values, other.seen.values)


def test_pairs_that_lack_a_checkpoint_are_left_out(tmp_path):
    values = history(9)
    del values[4]["b"]
    values[6]["a"][2, 5:8] = np.nan
    table = measure(write_run(tmp_path, values), GROUPS, Memory()).lags
    steps = [0, 10, 20, 30, 40, 50, 60, 70, 80]
    used = {name: {*rows["step_from"], *rows["step_to"]} for (name,), rows in table.group_by("group")}
    assert used["whole"] == set(steps) - {60}
    assert used["joint"] == {0, 10, 20, 30, 70, 80}
    assert not table["angle"].is_nan().any()


def test_large_tensors_are_known_to_a_few_percent(tmp_path):
    random = np.random.default_rng(3)
    w = random.normal(size=(300, 400)).astype(np.float32) * np.linspace(0.2, 2, 300, dtype=np.float32)[:, None]
    values = []
    for _ in range(9):
        values.append({"a": w})
        w = (w + 0.01 * random.normal(size=w.shape)).astype(np.float32)
    group = group_of("big", [("a", 0, 0, 300)], 300, w.size)
    table = measure(write_run(tmp_path, values), (group,), Memory()).lags
    errors = []
    steps = sorted({*table["step_from"], *table["step_to"]})
    for row in table.filter(table["lag"] > 1).iter_rows(named=True):
        u, v = (values[steps.index(row[end])]["a"].ravel().astype(float) for end in ("step_from", "step_to"))
        errors.append((1 - np.cos(row["angle"])) / (1 - np.cos(angle(u, v))) - 1)
        assert row["elements"] == sampling.MOST
    assert np.std(errors) < 1.5 * np.sqrt(2 / sampling.MOST)
    assert abs(np.mean(errors)) < 3 * np.sqrt(2 / sampling.MOST)
