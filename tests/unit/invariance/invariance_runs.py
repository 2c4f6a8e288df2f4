"""Runs made of names and shapes, for the invariance tests."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smd_analyze.records.run import Checkpoint, LazyTensor, Run

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance")


def lazy(shape, layout=None, dtype="float32"):
    def read() -> np.ndarray:
        raise AssertionError("finding groups must not read a tensor")

    return LazyTensor(tuple(shape), dtype, read, layout)


def ones(tensor):
    """Running statistics may be read: ε is compared with the variance."""
    return replace(tensor, read=lambda: np.ones(tensor.shape, np.float32))


def run_of(shapes: Mapping[str, tuple[int, ...]], *, layouts=None, groups=None, more=()):
    """A run whose last checkpoint has these shapes; `more` are earlier checkpoints' shapes."""
    checkpoints = []
    for step, entry in enumerate([*more, shapes]):
        tensors = {n: lazy(s, (layouts or {}).get(n)) for n, s in entry.items()}
        leaf = {n: n.replace("/", ".").split(".")[-1].split(":")[0] for n in tensors}
        parameters = {n: t for n, t in tensors.items() if leaf[n] not in STATISTICS}
        buffers = {n: ones(t) for n, t in tensors.items() if leaf[n] in STATISTICS}
        checkpoints.append(Checkpoint(step, f"{step}.pt", "torch", "plain", parameters, buffers=buffers))
    return Run("run", tuple(checkpoints), "file name", "optimizer steps", parameter_groups=groups or {})


def run_of_model(model, *, prefix="", alphabetical=False):
    """A run with one checkpoint: the model's state_dict, as a file that sorts names would give it or not."""
    names = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    items = [(prefix + k, v) for k, v in model.state_dict().items() if k in names or k.split(".")[-1] in STATISTICS]
    items = sorted(items) if alphabetical else items
    return run_of({k: tuple(v.shape) for k, v in items})


def norm(name, size):
    """A batch normalization."""
    return {f"{name}.{t}": (size,) for t in ("weight", "bias", "running_mean", "running_var")}


def status_of(groups, parameter):
    """(status, granularity) of a parameter's only row."""
    (row,) = [r for r in groups.parameters if r.parameter == parameter]
    return row.status, row.granularity
