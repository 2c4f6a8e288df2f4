"""Check what README's first command leaves behind: a report that says the right things, figures that hold a picture."""

import sys
from pathlib import Path

from matplotlib.image import imread

import smd_analyze as smd

report = smd.load(Path(sys.argv[1]))
figures = sorted(Path(sys.argv[2]).glob("*.png"))

invariant = report.layers.filter(report.layers["status"] == "invariant")
assert invariant.height >= 6, f"too few scale-invariant layers: {invariant.height}"
ratios = invariant["ratio"].drop_nulls().to_list()
assert ratios, "no layer has a measured angular update beside theory"
median = sorted(ratios)[len(ratios) // 2]
assert 0.95 < median < 1.05, f"measured over predicted angular update at equilibrium: {median}"
assert report.statistics["weight_norm"].null_count() == 0

assert len(figures) >= 3, f"figures: {figures}"
for figure in figures:
    assert imread(figure).std() > 0.02, f"{figure} is blank"
print(f"right: {invariant.height} invariant layers, median ratio {median:.3f}, {len(figures)} figures")
