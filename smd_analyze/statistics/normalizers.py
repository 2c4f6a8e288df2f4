"""Variances and gains of the batch normalizations behind the groups: what their ε lets through of a weight's scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.records.group import Group
from smd_analyze.records.run import Checkpoint, LazyTensor, Run
from smd_analyze.records.statistics import Normalizer
from smd_analyze.statistics.numbers import decode

MOST = 25  # checkpoints that are read: variances and gains move slowly
VARIANCES = ("running_var", "moving_variance", "_variance", "avg_var")
GAINS = ("weight", "gamma", "scale")
EPSILON = {"keras": 1e-3, "tensorflow": 1e-3, "chainer": 2e-5}  # defaults; torch, flax, paddle, mxnet and caffe: 1e-5
USUAL_EPSILON = 1e-5


def normalizers(run: Run, groups: Iterable[Group]) -> dict[str, Normalizer]:
    """Group's name → the batch normalization that divides its units' scale out, where its numbers are saved.

    Read at MOST checkpoints at most, linear in the step between them. Groups without such a normalization, of other
    sizes, or whose tensors cannot be read are left out.
    """
    count = len(run.checkpoints)
    at = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
    steps = np.array([c.step for c in run.checkpoints], float)
    usual = next((v for k, v in EPSILON.items() if k in run.checkpoints[-1].framework.lower()), USUAL_EPSILON)
    found: dict[str, Normalizer] = {}
    for group in groups:
        if not group.normalizer or group.granularity != "unit" or len(group.members) > 1:
            continue
        last = run.checkpoints[-1]
        gain = _name(group.normalizer, GAINS, last.parameters, group.units)
        variance = _name(group.normalizer, VARIANCES, {**last.parameters, **last.buffers}, group.units)
        if not gain or not variance:
            continue
        rows = [_vector(run.checkpoints[i], name) for i in at for name in (gain, variance)]
        if any(row is None or row.shape != (group.units,) for row in rows):
            continue
        both = np.array(rows).reshape(len(at), 2, group.units)
        every = np.array([np.interp(steps, steps[at], part) for part in both.reshape(len(at), -1).T]).T
        gains, variances = np.moveaxis(every.reshape(count, 2, group.units), 1, 0)
        epsilon = usual if group.epsilon is None else group.epsilon
        found[group.name] = Normalizer(gain, gains, variances, epsilon, group.epsilon is None)
    return found


def _name(path: str, leaves: Iterable[str], tensors: Mapping[str, LazyTensor], units: int) -> str:
    """The tensor of that module, one number for each unit; "" if there is none."""
    names = (f"{path}{separator}{leaf}" for leaf in leaves for separator in "./")
    return next((n for n in names if n in tensors and tensors[n].shape == (units,)), "")


def _vector(checkpoint: Checkpoint, name: str) -> np.ndarray | None:
    """The elements of a small tensor; None if the checkpoint lacks it or it cannot be read."""
    tensor = checkpoint.parameters.get(name) or checkpoint.buffers.get(name)
    try:
        return None if tensor is None else decode(tensor.read(), tensor.dtype, True)
    except (SmdError, OSError, ValueError, EOFError):  # the pass over the weights tells of files that cannot be read
        return None
