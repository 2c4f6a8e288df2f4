"""Child of engine.py: are the outputs of the compared programs equal? Usage: python check.py FOLDER"""

import sys
from pathlib import Path

import numpy as np


def check(results: Path) -> str:
    """The stage and the script must have found the same: norms to 1e-6, angles too where an arccos can be trusted."""
    ours, again, theirs = (np.load(results / f"{name}.npz") for name in ("two", "one", "script"))
    assert all(np.array_equal(ours[key], again[key]) for key in ("names", "norms", "angles")), "workers change the bits"
    place = {name: i for i, name in enumerate(ours["names"])}
    common = [(place[name], i) for i, name in enumerate(theirs["names"]) if name in place]
    assert common, "no tensor in common"
    mine, other = (list(side) for side in zip(*common, strict=True))
    norms = np.abs(ours["norms"][mine] / theirs["norms"][other] - 1).max()
    good = theirs["angles"][other] > 1e-4
    angles = np.abs(ours["angles"][mine] / theirs["angles"][other] - 1)[good].max()
    assert norms < 1e-6, norms
    assert angles < 1e-6, angles
    return f"{len(common)} tensors: norms agree to {norms:.0e}, angles to {angles:.0e}; one and two workers, same bits"


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
