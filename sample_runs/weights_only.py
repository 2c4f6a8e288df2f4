"""A sample run stripped of everything but its weights, and the figure of the schedule that they still tell.

python sample_runs/weights_only.py weights_only            # 67 state dicts: no optimizer, no scheduler, no settings
smd-analyze schedule weights_only

python sample_runs/weights_only.py weights_only --figure docs/weights_only_schedule.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
RUN = HERE / "resnet_sgdm"


def strip(target: Path, source: Path = RUN) -> None:
    """Save the weights of every checkpoint in `source`, and nothing else, under the same name in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("step_*.pt")):
        torch.save(torch.load(path, weights_only=True)["model"], target / path.name)


def draw(weights: Path, figure: Path) -> None:
    """The decay read off the weights alone, over what the training logged at every step."""
    import numpy as np

    import smd_analyze as smd
    from smd_analyze.decay_formulas import coupled_rate

    truth = np.load(HERE / "truth" / "resnet_sgdm.npz")
    drawn = smd.plots.schedule(smd.analyze(weights))
    drawn.suptitle("A schedule recovered from weights alone · sample_runs/resnet_sgdm", fontsize=11)
    (ax,) = drawn.axes
    logged = coupled_rate(truth["learning_rate"][1:] * truth["weight_decay"], truth["momentum"])
    steps = np.arange(len(logged))
    ax.plot(steps, logged, color="#d1603d", lw=3.5, alpha=0.45, zorder=3, label="what the training logged")
    ax.legend(loc="lower left", fontsize=8, frameon=False)
    drawn.savefig(figure, dpi=150)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("target", type=Path, nargs="?", default=Path("weights_only"))
    options.add_argument("--figure", type=Path)
    given = options.parse_args()
    strip(given.target)
    if given.figure:
        draw(given.target, given.figure)
