"""What the pass finds for decay clocks, against loading every tensor whole and trying every direction."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade_runs import Memory, checkpoint, from_bits, group_of, in_memory, run_of, to_bits, write_run
from planted_runs import TENSORS, VECTORS, Planted, check, everything, expected, groups, history

from smd_analyze.statistics import ledger, plan, second_look, sources, streaming, subjects
from smd_analyze.statistics.screening import screen
from smd_analyze.statistics.streaming import measure


@pytest.mark.parametrize("chunk_bytes", [200, 700, None])
def test_planted_directions_are_found_and_no_others(tmp_path, chunk_bytes):
    values = history()
    wanted = expected(values)
    for name, planted in TENSORS.items():
        assert sum(parameter == name for parameter, _ in wanted) >= len(planted.dead) + planted.still
    stats = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=chunk_bytes)
    check(stats.candidates, wanted)
    assert stats.candidates.looked_at == {
        "tensors": len(TENSORS) + 2,
        "sums": 2 * len(TENSORS),
        "slices": sum(sum(n for n in t.shape if n > 1) for t in TENSORS.values()) - 3 - 8 + 24,
        "vectors": 2,
    }
    assert not stats.candidates.set_aside


@pytest.mark.parametrize("count", [2, 3, 30])
def test_few_and_many_checkpoints(tmp_path, count):
    values = history(count)
    check(measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=900).candidates, expected(values))


def test_context_of_a_candidate(tmp_path):
    values = history()
    stats = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=300)
    found = {(c.parameter, c.functional): c for c in stats.candidates.found}
    for (name, _), candidate in found.items():
        whole = np.stack([v[name].astype(np.float64).ravel() for v in values])
        np.testing.assert_allclose(candidate.tensor_vv, (whole**2).sum(1), rtol=1e-12)
        np.testing.assert_allclose(candidate.tensor_dd[1:], ((whole[1:] - whole[:-1]) ** 2).sum(1), rtol=1e-12)
        assert np.isnan(candidate.tensor_dd[0])
        assert candidate.shape == values[0][name].shape
        assert candidate.dtype == "float32"
    told = {key: (c.kind, c.axes, c.parts, c.elements) for key, c in found.items()}
    assert told["head.weight", "sum over units"] == ("sum", (0,), 10, 24)
    assert told["keras.kernel", "unit 5"] == ("slice", (3,), 8, 54)
    assert told["keras.kernel", "index 1 of axis 0"] == ("slice", (0,), 3, 144)
    assert told["heads.kernel", "sum over units"] == ("sum", (1, 2), 24, 13)
    assert told["conv.weight", "input 4"] == ("slice", (1,), 5, 108)
    assert told["position", "sum over axis 1"] == ("sum", (1,), 12, 16)
    assert told["layers.0.bias", "whole"] == ("vector", (0,), 1, 16)


def test_within_unit_sums(tmp_path):
    """Weight standardization: the sum within each filter feels no gradient."""
    random = np.random.default_rng(3)
    now = random.normal(size=(12, 4, 3, 3)).astype(np.float32)
    values = [{"w": now}]
    for _ in range(5):
        noise = 0.1 * random.normal(size=now.shape)
        now = (now * np.float32(0.999) + noise - noise.mean((1, 2, 3), keepdims=True)).astype(np.float32)
        values.append({"w": now})
    stats = measure(write_run(tmp_path, values), (group_of("w", [("w", 0, 0, 12)], 12, now.size),), Memory())
    (found,) = stats.candidates.found
    assert (found.functional, found.axes, found.parts, found.elements) == ("within unit", (1, 2, 3), 36, 12)
    np.testing.assert_allclose(found.values, [v["w"].astype(float).sum((1, 2, 3)) for v in values], rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_types(tmp_path, dtype):
    """Slices come as they are saved; sums of 16-bit copies turn by their rounding, so they may be left out."""
    values = history()
    if dtype == "bfloat16":
        stored = [{n: to_bits(a) for n, a in h.items()} for h in values]
        exact = [{n: from_bits(a) for n, a in h.items()} for h in stored]
    else:
        stored = exact = [{n: a.astype(dtype) for n, a in h.items()} for h in values]
    names = [*TENSORS, *VECTORS]
    stats = measure(write_run(tmp_path, stored, dict.fromkeys(names, dtype)), groups(), Memory(), chunk_bytes=500)
    if dtype == "float64":
        check(stats.candidates, expected(exact))
        return
    found = {(c.parameter, c.functional): c for c in stats.candidates.found}
    assert {c.dtype for c in found.values()} == {dtype}
    for parameter, functional in (("layers.0.weight", "unit 3"), ("keras.kernel", "unit 5"), ("embedding", "unit 59")):
        axis, index = TENSORS[parameter].axis, int(functional.split()[1])
        slices = [np.take(v[parameter], index, axis).ravel() for v in exact]
        np.testing.assert_array_equal(found[parameter, functional].values, slices)


def test_tensors_that_must_be_asked_give_the_same(tmp_path):
    values = history()
    run = run_of([checkpoint(10 * t, f"memory{t}", in_memory(h)) for t, h in enumerate(values)])
    check(measure(run, groups(), Memory()).candidates, expected(values))


@pytest.mark.parametrize("count", [7, 40])
def test_two_workers_give_the_same_bits_as_one(tmp_path, count):
    run = write_run(tmp_path, history(count))
    one, two = (measure(run, groups(), Memory(), workers=n, chunk_bytes=300).candidates for n in (1, 2))
    assert one.looked_at == two.looked_at
    assert [(c.parameter, c.functional, c.alike) for c in one.found] == [
        (c.parameter, c.functional, c.alike) for c in two.found
    ]
    for a, b in zip(one.found, two.found, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_array_equal(a.tensor_dd, b.tensor_dd)


def test_a_missing_tensor_leaves_its_rows_empty(tmp_path):
    values = history(9)
    for t in (0, 4):
        for name in ("layers.0.weight", "head.weight", "layers.0.bias"):
            del values[t][name]
    stats = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=500)
    check(stats.candidates, expected(values))
    row = next(c for c in stats.candidates.found if c.parameter == "head.weight")
    assert np.flatnonzero(np.isnan(row.values).all(axis=1)).tolist() == [0, 4]
    assert np.flatnonzero(np.isnan(row.tensor_vv)).tolist() == [0, 4]
    assert np.flatnonzero(np.isnan(row.tensor_dd)).tolist() == [0, 1, 4, 5]


def test_a_shape_that_changes_leaves_its_rows_empty(tmp_path):
    values = history(8)
    values[7]["layers.0.weight"] = np.ones((17, 40), np.float32)
    values[7]["layers.0.bias"] = np.ones(17, np.float32)
    wanted = [dict(v) for v in values]
    del wanted[7]["layers.0.weight"], wanted[7]["layers.0.bias"]
    stats = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=500)
    check(stats.candidates, expected(wanted))


def test_a_file_that_is_cut_costs_its_rows_and_no_more(tmp_path):
    values = history(6)
    run = write_run(tmp_path, values)
    path = tmp_path / "step0030.safetensors"
    path.write_bytes(path.read_bytes()[:3000])
    found = measure(run, groups(), Memory(), chunk_bytes=500).candidates.found
    assert {(c.parameter, c.functional) for c in found} == set(expected(values))
    for candidate in found:
        assert np.flatnonzero(np.isnan(candidate.values).any(axis=1)).tolist() == [3]
        assert np.flatnonzero(np.isnan(candidate.tensor_vv)).tolist() == [3]
        assert np.flatnonzero(np.isnan(candidate.tensor_dd)).tolist() == [0, 3, 4]


def test_the_device_finds_the_same(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from smd_analyze.statistics import sums_torch

    def summers(place, files, workers):
        from functools import partial

        return [partial(sums_torch.sum_item, files=files, mine=sums_torch.ring("cpu"))]

    values = history(11)
    run = write_run(tmp_path, values)
    monkeypatch.setattr(streaming, "_summers", summers)
    monkeypatch.setattr(sums_torch, "BLOCK", 300)
    assert torch.get_num_threads() >= 1
    for chunk_bytes in (1000, None):
        check(measure(run, groups(), Memory(), chunk_bytes=chunk_bytes).candidates, expected(values))


@pytest.mark.parametrize("chunk_bytes", [90, None])
def test_long_sums_are_represented_by_some_of_their_elements(tmp_path, monkeypatch, chunk_bytes):
    monkeypatch.setattr(subjects, "LONGEST", 9)
    values = history()
    found = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=chunk_bytes).candidates.found
    wanted = expected(values)
    assert {(c.parameter, c.functional) for c in found if c.kind == "sum"} == {
        key for key in wanted if "sum" in key[1] or "within" in key[1]
    }
    for candidate in found:
        whole = wanted[candidate.parameter, candidate.functional]
        assert candidate.elements == whole.shape[1]
        if candidate.kind == "slice":
            continue
        step = -(-candidate.elements // 9)
        assert candidate.values.shape[1] == -(-candidate.elements // step) <= 9
        np.testing.assert_allclose(candidate.values, whole[:, ::step], rtol=1e-12, atol=1e-12)


def test_of_very_many_slices_the_first_the_last_and_some_others_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "SLICES", 20)
    monkeypatch.setattr(subjects, "EDGE", 3)
    values = history()
    stats = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=300)
    found = {(c.parameter, c.functional) for c in stats.candidates.found}
    assert {("embedding", "unit 58"), ("embedding", "unit 59"), ("layers.0.weight", "input 39")} <= found
    assert found == set(expected(values)) - {("layers.0.weight", "input 7")}


def test_constant_slices_are_candidates_too(tmp_path):
    """Decay below the rounding of fp32: a dead row stays as it is, which says how little decay there is."""
    random = np.random.default_rng(5)
    now = {"w": random.normal(size=(40, 12)).astype(np.float32)}
    values = [now]
    for _ in range(5):
        now = {"w": now["w"] + np.float32(0.1) * random.normal(size=(40, 12)).astype(np.float32)}
        now["w"][10:] = values[0]["w"][10:]
        values.append(now)
    stats = measure(write_run(tmp_path, values), (group_of("w", [("w", 0, 0, 40)], 40, 480),), Memory())
    found = stats.candidates.found
    assert len(found) == 4  # of 30 that are all alike
    assert [c.alike for c in found] == [26, 0, 0, 0]
    for candidate in found:
        row = int(candidate.functional.split()[1])
        assert row >= 10
        np.testing.assert_array_equal(candidate.values, [v["w"][row] for v in values])


def test_listed_are_the_longest_of_those_that_turned_least(tmp_path):
    random = np.random.default_rng(6)
    now = random.normal(size=(100, 20)).astype(np.float32) * np.arange(1, 101, dtype=np.float32)[:, None]
    values = [{"w": now}]
    for _ in range(5):
        noise = 3 * random.normal(size=now.shape).astype(np.float32)
        noise[:60] = 0
        now = now * np.float32(0.99) + noise
        values.append({"w": now})
    stats = measure(write_run(tmp_path, values), (group_of("w", [("w", 0, 0, 100)], 100, 2000),), Memory())
    rows = [int(c.functional.split()[1]) for c in stats.candidates.found]
    lengths = np.linalg.norm(values[0]["w"][:60], axis=1)
    assert sorted(rows) == sorted(np.argsort(-lengths)[:16])
    assert sum(c.alike for c in stats.candidates.found) == 60 - 16


def test_what_is_no_clock_is_set_aside_by_name(tmp_path):
    values = history(5)
    random = np.random.default_rng(0)
    for v in values:
        v["frozen"] = values[0]["head.weight"]
        v["zero"] = np.zeros((9, 8), np.float32)
        v["tiny"] = (1e-14 * random.normal(size=(9, 8))).astype(np.float32)
        v["tied"] = v["dense.kernel"]
    more = [group_of(n, [(n, 0, 0, len(values[0][n]))], len(values[0][n]), 1) for n in ("frozen", "zero", "tiny")]
    more.append(group_of("tied", [("tied", 1, 0, 11)], 11, 330))
    stats = measure(write_run(tmp_path, values), (*groups(), *more), Memory(), chunk_bytes=400)
    assert stats.candidates.set_aside == {
        "frozen": "frozen: never changes",
        "zero": "all zero",
        "tiny": "collapsed: elements below 1e-12",
        "tied": "the same as dense.kernel",
    }
    check(stats.candidates, expected(values))


def test_weights_that_are_not_finite_do_no_harm(tmp_path):
    values = history(6)
    for v in values[4:]:
        v["head.weight"] = v["head.weight"].copy()
        v["head.weight"][0, 0], v["head.weight"][1, 0], v["head.weight"][2, 5] = np.inf, -np.inf, np.nan
        v["layers.0.weight"] = np.full_like(v["layers.0.weight"], np.nan)
    stats = measure(write_run(tmp_path, values), groups(), Memory(), chunk_bytes=150)
    found = {(c.parameter, c.functional): c for c in stats.candidates.found}
    assert ("head.weight", "sum over units") in found
    assert np.isfinite(found["head.weight", "sum over units"].values[:4]).all()
    unit = found["layers.0.weight", "unit 3"]
    np.testing.assert_array_equal(unit.values, [v["layers.0.weight"][3] for v in values])


def test_only_vectors_of_the_chosen_modules_are_looked_at(tmp_path):
    """A matrix that is in no group was excluded by somebody."""
    run = write_run(tmp_path, history())
    chosen = tuple(g for g in groups() if g.name == "layers.0.weight")
    looked_at = measure(run, chosen, Memory()).candidates.looked_at
    assert (looked_at["tensors"], looked_at["vectors"]) == (2, 1)


def test_one_checkpoint_has_no_candidates(tmp_path):
    stats = measure(write_run(tmp_path, history(1)), groups(), Memory())
    assert not stats.candidates.found
    assert not stats.candidates.looked_at.get("sums")


def test_a_copy_further_on_is_said(tmp_path):
    values = history(5)
    values[4] = values[1]
    stats = measure(write_run(tmp_path, values), groups(), Memory())
    (finding,) = [f for f in stats.findings if f.code == "duplicate-checkpoint"]
    assert "step0010" in finding.message
    assert "step0040" in finding.where


def test_where_there_is_little_room_all_are_kept_by_fewer_elements(tmp_path, monkeypatch):
    tensors = {f"head{n}": Planted((12, 300), (0,), dead=((0, 4),), still=True) for n in range(6)}
    values = history(6, tensors=tensors)
    monkeypatch.setattr(ledger, "ROOM", 4000)
    monkeypatch.setattr(second_look, "ROOM", 4000)
    stats = measure(write_run(tmp_path, values), groups(tensors), Memory())
    wanted = expected(values, tensors)
    found = {(c.parameter, c.functional): c for c in stats.candidates.found}
    assert found.keys() == wanted.keys()
    assert sum(c.values.size for c in found.values()) <= 8000
    for key, candidate in found.items():
        left = candidate.values.shape[1]
        assert 64 <= left < candidate.elements == 300
        at = [np.flatnonzero(np.isclose(wanted[key][0], v, rtol=1e-12))[0] for v in candidate.values[0]]
        assert np.diff(at).max() <= 2 * (300 // left + 1)
        np.testing.assert_allclose(candidate.values, wanted[key][:, at], rtol=1e-11)


def test_far_files_cost_few_requests(tmp_path):
    values = history(6)
    near = write_run(tmp_path, values)
    requests = []

    class Far:
        def identity(self, path):
            return Path(path.removeprefix("far://")).stat().st_size, 0

        def read_into(self, path, offset, target):
            requests.append((path, offset))
            part = Path(path.removeprefix("far://")).read_bytes()[offset : offset + len(target)]
            target[: len(part)] = part
            return len(part)

    def moved(tensor):
        return replace(tensor, extent=replace(tensor.extent, path=f"far://{tensor.extent.path}"))

    run = run_of(
        [
            replace(
                c,
                parameters={n: moved(t) for n, t in c.parameters.items()},
                identity={f"far://{p}": (s, 0) for p, (s, _) in c.identity.items()},
            )
            for c in near.checkpoints
        ]
    )
    check(measure(run, groups(), Memory(), far=Far()).candidates, expected(values))
    claimed = len({name for name, functional in expected(values) if "sum" not in functional and name in TENSORS})
    assert len(requests) == 6 * (1 + claimed)  # the pass reads a small file in one go; then each claimed tensor


def test_where_decay_moves_more_than_gradients_turn_nothing_is_claimed(tmp_path):
    """All slices keep their direction alike then: that proves nothing."""
    random = np.random.default_rng(7)
    now = random.normal(size=(30, 40)).astype(np.float32)
    values = [{"w": now}]
    for _ in range(5):
        now = now * np.float32(0.8) + (0.004 * random.normal(size=now.shape)).astype(np.float32)
        values.append({"w": now})
    stats = measure(write_run(tmp_path, values), (group_of("w", [("w", 0, 0, 30)], 30, 1200),), Memory())
    assert not [c for c in stats.candidates.found if c.kind == "slice"]


def test_a_file_that_changes_during_the_pass_leaves_its_rows_empty(tmp_path, monkeypatch):
    def touched(*arguments):
        found = second_look.second_look(*arguments)
        os.utime(tmp_path / "step0020.safetensors", (1, 1))
        return found

    monkeypatch.setattr(streaming, "second_look", touched)
    found = measure(write_run(tmp_path, history(6)), groups(), Memory()).candidates.found
    assert found
    for candidate in found:
        assert np.flatnonzero(np.isnan(candidate.values).any(axis=1)).tolist() == [2]
        assert np.flatnonzero(np.isnan(candidate.tensor_vv)).tolist() == [2]
        assert np.flatnonzero(np.isnan(candidate.tensor_dd)).tolist() == [0, 2, 3]


@pytest.mark.parametrize(("chunk_bytes", "most"), [(None, 8 << 20), (None, 1), (300, 1)])
def test_all_that_the_pass_keeps_of_a_tensor(tmp_path, monkeypatch, chunk_bytes, most):
    """Sums, sizes and turns between anchors, whether or not the pass is cut in time; a joint group sees it twice."""
    histories = []
    monkeypatch.setattr(ledger, "screen", lambda known: histories.append(known) or screen(known))
    monkeypatch.setattr(plan, "SUMS", most)
    monkeypatch.setattr(sources, "MANY", 7)
    names = ("keras.kernel", "up.weight", "heads.kernel", "conv.weight", "layers.0.weight")
    tensors = {name: TENSORS[name] for name in names}
    values = history(37, tensors=tensors)
    joint = group_of("joint", [("conv.weight", 0, 2, 8), ("layers.0.weight", 0, 0, 12)], 3, 750)
    measure(write_run(tmp_path, values), (joint, *groups(tensors)), Memory(), chunk_bytes=chunk_bytes)
    assert [h.subject.parameter for h in histories] == list(names)
    for known in histories:
        name, axes = known.subject.parameter, known.subject.slices
        whole = np.stack([v[name].astype(np.float64) for v in values])
        flat = whole.reshape(len(whole), -1)
        np.testing.assert_allclose(known.vv, (flat**2).sum(1), rtol=1e-12)
        np.testing.assert_allclose(known.dd[1:], ((flat[1:] - flat[:-1]) ** 2).sum(1), rtol=1e-12)
        over, within = list(everything(name, [v[name] for v in values], tensors[name]))[:2]
        np.testing.assert_allclose(known.over, over[1], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(known.within, within[1], rtol=1e-12, atol=1e-12)
        assert known.subject.anchors == (0, 6, 12, 18, 24, 30, 36)
        for axis, turns in zip(axes, known.turns, strict=True):
            number = np.arange(flat.shape[1]).reshape(axis.before, axis.count, axis.after).transpose(1, 0, 2)
            places = number.reshape(axis.count, -1)[:, np.isin(number[0].ravel(), axis.sample)]
            assert places.shape[1] == min(16, axis.elements)
            assert np.array_equal(places - places[0], np.arange(axis.count)[:, None] * axis.after + 0 * places)
            seen = flat[list(known.subject.anchors)][:, places]
            change = seen[1:] - seen[:-1]
            expect = [(seen[1:] ** 2).sum(2), (change**2).sum(2), (change * seen[1:]).sum(2)]
            np.testing.assert_allclose(turns.transpose(1, 0, 2), expect, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", [(512, 512, 3, 3), (7, 4), (40, 16), (3, 100_003)])
def test_a_sample_has_one_element_of_each_stretch_and_keeps_no_beat(shape):
    axis = subjects.AxisView((0,), 1, shape[0], int(np.prod(shape[1:])), "unit")
    for most in (16, 300):
        places = axis.positions(most)
        count = min(most, axis.elements)
        edges = np.arange(count + 1) * axis.elements // count
        assert ((edges[:-1] <= places) & (places < edges[1:])).all()
    if len(shape) == 4:
        assert len(set(axis.sample % 9)) > 5


def test_taps_that_are_dead_do_not_hide_a_dead_unit(tmp_path):
    tensors = {"w": Planted((150, 32, 3, 3), (0,), dead=((2, 0), (0, 140)))}
    values = history(4, tensors=tensors)
    check(measure(write_run(tmp_path, values), groups(tensors), Memory()).candidates, expected(values, tensors))
