"""Whether training began at the first checkpoint: then no optimizer state was carried over."""

from __future__ import annotations

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.records.run import LazyTensor, Run

COUNTER = "num_batches_tracked"
LOOKED_AT = 16  # vectors read at most
LONG = 8  # elements of a vector whose being all ones is no chance


def begins_untrained(run: Run) -> bool:
    """Whether normalization layers of the first checkpoint are as they are initialised.

    Either BatchNorm's counter of batches is 0, or a vector of ones has moved by the last checkpoint. False where
    nothing shows it: the run may go on from another one.
    """
    if not run.checkpoints:
        return False
    first, last = run.checkpoints[0], run.checkpoints[-1]
    counters = [t for name, t in first.buffers.items() if name.endswith(COUNTER)]
    if counters:
        seen = _read(counters[0])
        return seen is not None and not seen.any()
    vectors = [
        (t, last.parameters[name])
        for name, t in first.parameters.items()
        if len(t.shape) == 1 and t.shape[0] >= LONG and t.dtype.startswith("float") and name in last.parameters
    ]
    for begun, ended in vectors[:LOOKED_AT]:
        values = _read(begun)
        if values is not None and (values == 1).all():
            moved = _read(ended)
            if moved is not None and (moved != 1).any():
                return True
    return False


def _read(tensor: LazyTensor) -> np.ndarray | None:
    """The elements; None where the file does not give them, which is told elsewhere."""
    try:
        return tensor.read()
    except (SmdError, OSError):
        return None
