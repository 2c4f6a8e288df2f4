"""The whole pass against numpy in float64."""

import os
from dataclasses import replace

import numpy as np
import pytest
from handmade_runs import (
    Memory,
    checkpoint,
    from_bits,
    group_of,
    in_memory,
    kahan,
    reference,
    run_of,
    to_bits,
    write,
    write_run,
)

from smd_analyze.errors import UsageError
from smd_analyze.statistics.streaming import measure

SHAPES = {"conv": (6, 4, 3, 3), "head": (10, 24), "kernel": (24, 10), "up": (3, 8, 5), "qkv": (48, 16), "bias": (7,)}
GROUPS = {
    "conv": ([("conv", 0, 0, 6)], 6),
    "kernel": ([("kernel", 1, 0, 10)], 10),
    "up": ([("up", 1, 0, 8)], 4),
    "q": ([("qkv", 0, 0, 16)], 4),
    "v": ([("qkv", 0, 32, 48)], 2),
    "columns": ([("qkv", 1, 4, 12)], 2),
    "whole": ([("head", 1, 0, 24)], 1),
    "joint": ([("head", 0, 2, 8), ("kernel", 1, 0, 6), ("up", 0, 0, 3)], 3),
    "bias": ([("bias", 0, 0, 7)], 7),
}


def history(count=5, seed=0, shapes=None):
    random = np.random.default_rng(seed)
    now = {name: random.normal(size=shape).astype(np.float32) for name, shape in (shapes or SHAPES).items()}
    made = []
    for _ in range(count):
        made.append(now)
        now = {name: (a + 0.01 * random.normal(size=a.shape)).astype(np.float32) for name, a in now.items()}
    return made


def groups_of(shapes=None):
    shapes = shapes or SHAPES
    made = []
    for name, (members, units) in GROUPS.items():
        numel = sum(np.prod(shapes[p]) // shapes[p][a] * (j - i) for p, a, i, j in members)
        made.append(group_of(name, members, units, int(numel)))
    return tuple(made)


def check(stats, values, rtol=1e-12):
    for name, (members, units) in GROUPS.items():
        expected = reference(values, members, units)
        series = stats.units(name)
        np.testing.assert_allclose([series.vv, series.dd, series.dv], expected, rtol=rtol, atol=1e-14, err_msg=name)
        rows = stats.table.filter(group=name)
        np.testing.assert_allclose(rows["weight_norm"], np.sqrt(expected[0].sum(1)), rtol=1e-12)
        flat = [np.concatenate([np.moveaxis(h[p], a, 0)[i:j].ravel() for p, a, i, j in members]) for h in values]
        angles = [kahan(u, v) for u, v in zip(flat, flat[1:], strict=False)]
        np.testing.assert_allclose(rows["angle"][1:], angles, rtol=1e-9)
        np.testing.assert_allclose(rows["angle_from_first"][1:], [kahan(flat[0], v) for v in flat[1:]], rtol=1e-9)
        assert rows["angle"][0] is None
        assert rows["angle_from_first"][0] == 0
        assert rows["nonfinite"].to_list() == [0] * len(values)
        np.testing.assert_allclose(rows["rms_weight"] * np.sqrt(flat[0].size), rows["weight_norm"], rtol=1e-14)


@pytest.mark.parametrize("chunk_bytes", [64, 200, 1000, 512 * 1024])
def test_units_and_groups_equal_numpy(tmp_path, chunk_bytes):
    values = history()
    stats = measure(write_run(tmp_path, values), groups_of(), Memory(), chunk_bytes=chunk_bytes)
    check(stats, values)
    assert stats.steps == (0, 10, 20, 30, 40)
    assert not stats.findings


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_float_dtype_is_read_exactly(tmp_path, dtype):
    values = history()
    if dtype == "bfloat16":
        stored = [{n: to_bits(a) for n, a in h.items()} for h in values]
        exact = [{n: from_bits(a) for n, a in h.items()} for h in stored]
    else:
        stored = exact = [{n: a.astype(dtype) for n, a in h.items()} for h in values]
    run = write_run(tmp_path, stored, dict.fromkeys(SHAPES, dtype))
    stats = measure(run, groups_of(), Memory(), chunk_bytes=300)
    for name, (members, units) in GROUPS.items():
        series = stats.units(name)
        np.testing.assert_allclose(
            [series.vv, series.dd, series.dv], reference(exact, members, units), rtol=1e-12, atol=1e-14
        )


def test_two_workers_give_the_same_bits_as_one(tmp_path):
    run = write_run(tmp_path, history(9))
    one, two = Memory(), Memory()
    first = measure(run, groups_of(), one, workers=1, chunk_bytes=150)
    second = measure(run, groups_of(), two, workers=2, chunk_bytes=150)
    assert first.table.equals(second.table)
    assert one.kept.keys() == two.kept.keys()
    for key in one.kept:
        np.testing.assert_array_equal(one.kept[key], two.kept[key])


def test_tensors_that_must_be_asked_equal_those_that_lie_raw():
    values = history()
    run = run_of([checkpoint(t, f"memory{t}", in_memory(h)) for t, h in enumerate(values)])
    check(measure(run, groups_of(), Memory()), values)


def test_a_dtype_that_changes_on_the_way_is_compared_as_numbers(tmp_path):
    values = history()
    stored = [h if t < 2 else {n: a.astype(np.float16) for n, a in h.items()} for t, h in enumerate(values)]
    stats = measure(write_run(tmp_path, stored), groups_of(), Memory())
    check(stats, [{n: a.astype(np.float64) for n, a in h.items()} for h in stored])


def test_offsets_may_differ_between_checkpoints(tmp_path):
    values = history()
    padded = [{"a_pad": np.zeros(1 + 3 * t, np.float32), **h} for t, h in enumerate(values)]
    padded[2]["d_pad"] = np.zeros(5, np.float32)
    check(measure(write_run(tmp_path, padded), groups_of(), Memory(), chunk_bytes=400), values)


def test_bytes_that_lie_at_odd_places_are_read_right(tmp_path):
    values = history()
    made = []
    for t, arrays in enumerate(values):
        path = tmp_path / f"{t}.bin"
        tensors = write(path, arrays)
        path.write_bytes(b"xyz" + path.read_bytes())
        moved = {
            n: replace(x, extent=replace(x.extent, offset=x.extent.offset + 3)) for n, x in tensors.items() if x.extent
        }
        made.append(checkpoint(t, path, moved))
    check(measure(run_of(made), groups_of(), Memory(), chunk_bytes=400), values)


def test_many_checkpoints_are_cut_in_time_without_a_trace(tmp_path):
    values = history(70)
    check(measure(write_run(tmp_path, values), groups_of(), Memory()), values)


def test_long_groups_are_given_away_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("smd_analyze.statistics.collecting.SUMS", 24 * 5 * 3)
    values = history()
    store = Memory()
    check(measure(write_run(tmp_path, values), groups_of(), store, chunk_bytes=100), values)
    assert [(first, shape) for kind, name, first, shape in store.puts if name == "conv"] == [
        (0, (3, 5, 3)),
        (3, (3, 5, 3)),
    ]


def test_not_a_number_is_counted_and_named(tmp_path):
    values = history()
    values[2] = {n: a.copy() for n, a in values[2].items()}
    values[2]["conv"][4, 1, 0, :2] = np.nan
    values[2]["conv"][5, 1, 0, 0] = np.inf
    values[2]["qkv"][0, 5] = np.nan
    stats = measure(write_run(tmp_path, values), groups_of(), Memory(), chunk_bytes=300)
    rows = stats.table.filter(group="conv")
    assert rows["nonfinite"].to_list() == [0, 0, 3, 0, 0]
    assert [x is None for x in rows["weight_norm"]] == [False, False, True, False, False]
    assert [x is None for x in rows["angle"]] == [True, False, True, True, False]
    assert stats.table.filter(group="q")["nonfinite"].to_list() == [0, 0, 1, 0, 0]
    assert stats.table.filter(group="columns")["nonfinite"].to_list() == [0, 0, 1, 0, 0]
    assert stats.table.filter(group="v")["nonfinite"].to_list() == [0] * 5
    assert np.isfinite(stats.units("conv").vv[2]).tolist() == [True] * 4 + [False] * 2
    (finding,) = stats.findings
    assert finding.code == "nonfinite-weights"
    assert "step0020" in finding.where
    assert "conv (3)" in finding.message


def test_a_cut_file_costs_its_checkpoint_and_no_more(tmp_path):
    values = history()
    run = write_run(tmp_path, values)
    path = tmp_path / "step0020.safetensors"
    path.write_bytes(path.read_bytes()[:1500])
    stats = measure(run, groups_of(), Memory(), chunk_bytes=300)
    rows = stats.table.filter(group="conv")
    assert rows["weight_norm"].is_null().to_list() == [False, False, True, False, False]
    assert rows["angle"].is_null().to_list() == [True, False, True, True, False]
    assert rows["nonfinite"].to_list() == [0, 0, None, 0, 0]
    assert rows["angle_from_first"].is_null().to_list() == [False, False, True, False, False]
    series = stats.units("conv")
    assert np.isnan(series.vv[2]).all()
    assert np.isnan(series.dd[[0, 2, 3]]).all()
    assert np.isfinite(series.dd[[1, 4]]).all()
    assert [f.code for f in stats.findings] == ["truncated-file"]
    assert stats.findings[0].where == str(path)


def test_a_file_that_ends_too_early_without_known_identity(tmp_path):
    values = history()
    run = write_run(tmp_path, values)
    run = replace(run, checkpoints=tuple(replace(c, identity={}) for c in run.checkpoints))
    path = tmp_path / "step0020.safetensors"
    path.write_bytes(path.read_bytes()[:1500])
    stats = measure(run, groups_of(), Memory(), chunk_bytes=300)
    assert stats.table["weight_norm"].null_count() == len(GROUPS)  # what was read before the end is not kept either
    assert np.isnan(stats.units("conv").vv[2]).all()
    assert [f.code for f in stats.findings] == ["truncated-file"]


def test_a_file_that_is_written_while_we_read_is_left_out(tmp_path):
    values = history()
    run = write_run(tmp_path, values)
    path = tmp_path / "step0020.safetensors"

    def touch(done, _what):
        if done > 0.5:
            os.utime(path, ns=(1, 1))

    stats = measure(run, groups_of(), Memory(), chunk_bytes=300, progress=touch)
    assert [(f.code, f.where) for f in stats.findings] == [("changed-file", str(path))]
    rows = stats.table.filter(group="conv")
    assert rows["weight_norm"].is_null().to_list() == [False, False, True, False, False]
    assert rows["angle"].is_null().to_list() == [True, False, True, True, False]
    assert np.isnan(stats.units("conv").vv).all(axis=1).tolist() == [False, False, True, False, False]
    assert np.isnan(stats.units("conv").dd).all(axis=1).tolist() == [True, False, True, True, False]


def test_a_file_that_is_gone_is_a_finding(tmp_path):
    values = history()
    run = write_run(tmp_path, values)
    (tmp_path / "step0000.safetensors").unlink()
    stats = measure(run, groups_of(), Memory())
    assert [f.code for f in stats.findings] == ["unreadable-file"]
    rows = stats.table.filter(group="conv")
    assert rows["weight_norm"].is_null().to_list() == [True, False, False, False, False]
    assert rows["angle_from_first"].is_null().all()


def test_a_tensor_that_a_checkpoint_lacks(tmp_path):
    values = history()
    stored = [dict(h) for h in values]
    del stored[0]["conv"], stored[3]["conv"]
    stats = measure(write_run(tmp_path, stored), groups_of(), Memory())
    rows = stats.table.filter(group="conv")
    assert rows["weight_norm"].is_null().to_list() == [True, False, False, True, False]
    assert rows["angle"].is_null().to_list() == [True, True, False, True, True]
    assert rows["angle_from_first"].to_list()[1] == 0
    assert rows["angle_from_first"][4] == pytest.approx(kahan(values[1]["conv"], values[4]["conv"]), rel=1e-9)
    assert {f.code for f in stats.findings} == {"missing-tensor"}
    assert stats.table.filter(group="whole")["weight_norm"].null_count() == 0


def test_a_member_that_no_checkpoint_has_leaves_its_group_unmeasured(tmp_path):
    values = history()
    stored = [{n: a for n, a in h.items() if n != "up"} for h in values]
    stats = measure(write_run(tmp_path, stored), groups_of(), Memory())
    assert stats.table.filter(group="joint")["weight_norm"].null_count() == 5
    assert stats.table.filter(group="conv")["weight_norm"].null_count() == 0
    assert {f.code for f in stats.findings} == {"not-measured"}
    assert np.isnan(stats.units("joint").vv).all()


def test_a_shape_that_changes_is_left_out(tmp_path):
    values = history()
    stored = [dict(h) for h in values]
    stored[4]["head"] = np.zeros((11, 24), np.float32)
    stats = measure(write_run(tmp_path, stored), groups_of(), Memory())
    assert stats.table.filter(group="whole")["weight_norm"].is_null().to_list() == [False] * 4 + [True]
    assert "shape-changed" in {f.code for f in stats.findings}


def test_integers_are_never_measured(tmp_path):
    stored = [{"conv": np.ones((4, 4), np.int64)} for _ in range(2)]
    group = group_of("conv", [("conv", 0, 0, 4)], 4, 16)
    stats = measure(write_run(tmp_path, stored), (group,), Memory())
    assert stats.table["weight_norm"].null_count() == 2
    assert [f.code for f in stats.findings] == ["not-measured"]


def test_copies_and_frozen_tensors_are_found(tmp_path):
    values = history()
    values[3] = values[2]
    stats = measure(write_run(tmp_path, values), groups_of(), Memory())
    assert [(f.code, f.where[-20:]) for f in stats.findings] == [("duplicate-checkpoint", "step0030.safetensors")]
    assert stats.table.filter(group="conv", step=30)["angle"].to_list() == [0.0]
    frozen = [{**h, "conv": values[0]["conv"]} for h in history()]
    stats = measure(write_run(tmp_path, frozen), groups_of(), Memory())
    assert [(f.code, f.where) for f in stats.findings] == [("frozen", "conv")]


def test_long_rows_of_copies_are_one_finding_and_very_many_are_not_all_listed(tmp_path):
    values = history(7)
    values[2] = values[3] = values[4] = values[1]
    (finding,) = measure(write_run(tmp_path, values), groups_of(), Memory()).findings
    assert finding.code == "duplicate-checkpoint"
    assert finding.message.startswith("4 checkpoints in a row, from ")
    assert "step0010" in finding.message
    assert "step0040" in finding.where
    twice = [v for h in history(30) for v in (h, h)]
    found = measure(write_run(tmp_path, twice), groups_of(), Memory()).findings
    assert len(found) == 20
    assert found[-1].message.endswith("(and 10 more like this, not listed)")


def test_weights_that_become_exactly_zero_are_said_and_those_that_fade_are_not(tmp_path):
    values = history()
    values[2] = {**values[2], "conv": values[2]["conv"].copy(), "head": 0 * values[2]["head"]}
    values[2]["conv"][1:4] = 0
    values[0] = {**values[0], "up": 0 * values[0]["up"]}
    for t, scale in ((2, 1e-7), (3, 1e-14), (4, 0.0)):
        values[t] = {**values[t], "bias": (values[1]["bias"] * scale).astype(np.float32)}
    stats = measure(write_run(tmp_path, values), groups_of(), Memory(), chunk_bytes=300)
    found = {f.where[-20:-12]: f for f in stats.findings}
    assert {f.code for f in found.values()} == {"zero-weights"}
    assert [(at, f.severity) for at, f in found.items()] == [("step0000", "note"), ("step0020", "warning")]
    assert "up (4 of 4 units)" in found["step0000"].message
    assert "conv (3 of 6 units), whole (1 of 1 units)" in found["step0020"].message
    assert stats.table.filter(group="whole")["weight_norm"][2] == 0
    assert stats.table.filter(group="whole")["angle"][2] is None


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
    values = history()
    monkeypatch.setattr("smd_analyze.statistics.reading.SPARE_DESCRIPTORS", 10**7)
    check(measure(write_run(tmp_path, values), groups_of(), Memory(), chunk_bytes=300), values)


def test_progress_reaches_the_end(tmp_path):
    told = []
    measure(
        write_run(tmp_path, history()), groups_of(), Memory(), progress=lambda done, what: told.append((done, what))
    )
    assert told[0][0] == 0
    assert told[-1][0] == pytest.approx(1)
    assert all(what for _, what in told)


def test_an_unknown_group_is_an_error_with_names(tmp_path):
    stats = measure(write_run(tmp_path, history(2)), groups_of(), Memory())
    with pytest.raises(UsageError, match="conv"):
        stats.units("nothing")


def test_one_checkpoint_alone_has_norms(tmp_path):
    values = history(1)
    stats = measure(write_run(tmp_path, values), groups_of(), Memory())
    assert stats.table["weight_norm"].null_count() == 0
    assert stats.table["angle"].null_count() == len(GROUPS)


def test_many_frozen_tensors_are_one_finding(tmp_path):
    values = history()
    frozen = [{**values[0], "conv": h["conv"]} for h in values]
    (finding,) = measure(write_run(tmp_path, frozen), groups_of(), Memory()).findings
    assert finding.code == "frozen"
    assert finding.message.startswith("5 tensors are the same")


def test_an_empty_tensor_is_said_and_not_measured(tmp_path):
    stored = [{**h, "empty": np.zeros((0, 3), np.float32)} for h in history()]
    groups = (*groups_of(), group_of("empty", [("empty", 0, 0, 0)], 1, 0))
    stats = measure(write_run(tmp_path, stored), groups, Memory())
    assert [(f.code, f.where) for f in stats.findings] == [("not-measured", "empty")]
    assert stats.table.filter(group="empty")["weight_norm"].null_count() == 5


def test_the_table_has_the_settled_columns_and_types(tmp_path):
    table = measure(write_run(tmp_path, history(2)), groups_of(), Memory()).table
    assert {name: str(kind) for name, kind in table.schema.items()} == {
        "group": "String",
        "step": "Int64",
        "weight_norm": "Float64",
        "rms_weight": "Float64",
        "angle": "Float64",
        "angle_from_first": "Float64",
        "nonfinite": "Int64",
    }
    assert not any(table[name].is_nan().any() for name in ("weight_norm", "rms_weight", "angle", "angle_from_first"))
