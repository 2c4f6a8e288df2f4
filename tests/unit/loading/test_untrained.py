"""Whether a run begins at its first checkpoint, from what normalization layers hold there."""

import numpy as np
import pytest

from smd_analyze.loading.untrained import begins_untrained
from smd_analyze.records.run import Checkpoint, LazyTensor, Run


def tensor(values):
    array = np.asarray(values)
    return LazyTensor(array.shape, str(array.dtype), lambda: array)


def run(*saved):
    points = [
        Checkpoint(step, f"{step}.pt", "torch", "", {k: tensor(v) for k, v in weights.items()},
                   buffers={k: tensor(v) for k, v in buffers.items()})
        for step, (weights, buffers) in enumerate(saved)
    ]  # fmt: skip
    return Run("ckpts", tuple(points), "names", "optimizer steps")


@pytest.mark.parametrize(("count", "told"), [(0, True), (500, False)])
def test_batch_norms_counter_tells(count, told):
    buffers = {"bn.num_batches_tracked": np.array(count)}
    ones = {"bn.weight": np.ones(16, np.float32)}
    moved = {"bn.weight": np.full(16, 1.1, np.float32)}
    assert begins_untrained(run((ones, buffers), (moved, buffers))) is told


def test_a_vector_of_ones_that_moves_later_was_untrained():
    ones, moved = np.ones(16, np.float32), np.linspace(0.9, 1.1, 16, dtype=np.float32)
    assert begins_untrained(run(({"ln.weight": ones}, {}), ({"ln.weight": moved}, {})))
    assert not begins_untrained(run(({"ln.weight": ones}, {}), ({"ln.weight": ones}, {})))  # frozen
    assert not begins_untrained(run(({"ln.weight": moved}, {}), ({"ln.weight": ones}, {})))
    assert not begins_untrained(run())
