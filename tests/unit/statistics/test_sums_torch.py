"""The device's sums equal the CPU kernel's (tried here with torch's own CPU device)."""

import numpy as np
import pytest
import torch
from handmade_runs import checkpoint, group_of, in_memory, run_of, to_bits, write_run

from smd_analyze.errors import UsageError
from smd_analyze.statistics import reading, streaming, sums, sums_torch
from smd_analyze.statistics.plan import items, make_plan

GROUPS = (
    group_of("rows", [("a", 0, 0, 12)], 12, 12 * 40),
    group_of("columns", [("a", 1, 4, 36)], 8, 12 * 32),
    group_of("joint", [("b", 1, 0, 6), ("a", 0, 0, 12)], 3, 180 + 480),
)


def history(dtype, count=6):
    random = np.random.default_rng(1)
    now = {"a": random.normal(size=(12, 40)), "b": random.normal(size=(5, 6, 6))}
    made = []
    for _ in range(count):
        made.append({n: to_bits(a) if dtype == "bfloat16" else a.astype(dtype) for n, a in now.items()})
        now = {n: a + 0.1 * random.normal(size=a.shape) for n, a in now.items()}
    return made


def both(run, chunk_bytes):
    plan = make_plan(run, GROUPS, chunk_bytes)
    with reading.opened(dict.fromkeys(plan.found.paths)) as files:
        ring, scratch = sums_torch.ring("cpu"), sums.Scratch()
        return [(sums.sum_item(i, files, scratch), sums_torch.sum_item(i, files, ring)) for i in items(plan)]


def equal(pairs):
    assert pairs
    for mine, other in pairs:
        np.testing.assert_allclose(other.sums, mine.sums, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(other.firsts, mine.firsts, rtol=1e-13, atol=1e-13)
        np.testing.assert_array_equal(other.nonfinite, mine.nonfinite)
        assert other.problems == mine.problems


@pytest.mark.parametrize("block", [1 << 24, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_device_sums_equal_cpu_sums(tmp_path, dtype, block, monkeypatch):
    monkeypatch.setattr(sums_torch, "BLOCK", block)
    equal(both(write_run(tmp_path, history(dtype), dict.fromkeys("ab", dtype)), 500))


def test_missing_and_broken_weights(tmp_path):
    values = history("float32")
    del values[0]["a"], values[3]["b"]
    values[4]["a"][2, 5:8] = np.nan
    run = write_run(tmp_path, values)
    path = tmp_path / "step0020.safetensors"
    path.write_bytes(path.read_bytes()[:900])
    equal(both(run, 500))


def test_tensors_that_must_be_asked():
    values = history("float32")
    equal(both(run_of([checkpoint(t, f"m{t}", in_memory(h)) for t, h in enumerate(values)]), 500))


def test_a_device_that_is_not_there_is_an_error():
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="cuda"):
            streaming.choose_device("cuda", 10)
        assert streaming.choose_device("auto", 10**12) == "cpu"
    with pytest.raises(UsageError, match="tpu"):
        streaming.choose_device("tpu", 10)
    assert streaming.choose_device("auto", 10) == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu(tmp_path):
    run = write_run(tmp_path, history("float32"))
    plan = make_plan(run, GROUPS, 500)
    with reading.opened(dict.fromkeys(plan.found.paths)) as files:
        ring, scratch = sums_torch.ring("cuda"), sums.Scratch()
        equal([(sums.sum_item(i, files, scratch), sums_torch.sum_item(i, files, ring)) for i in items(plan)])
