"""Every printed 95 % interval of strangers' runs against what is known of them: python benchmarks/real_intervals.py DIR

DIR holds one folder per run, named as in RUNS; what is missing is left out. Prints a table of docs/accuracy.md.
Known values were read in the runs' own repositories, at training scripts or in the files. Intervals: decay clocks (rate
per recorded step), Σηλ, ηλ in force, relaxation rates, decay from data.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

import smd_analyze as smd
from smd_analyze.records.report import Report

ROUNDED = float(-np.log(np.float32(1) - np.float32(2e-4 * 0.01)))  # 2.02656e-6: float32(1 − ηλ) on the CPU


@dataclass(frozen=True)
class Known:
    """A run: folder, public repository, what is known in words, decay per recorded step that acts on the weights (None:
    not a constant that is known), and hyperparameters to give besides.
    """

    folder: str
    source: str
    words: str
    decay: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    rate: float | None = None  # ηλ of one step where momentum amplifies it, or rounding changes it


SGD = {"optimizer": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}
RUNS = (
    Known("retinaface_sgdm", "UserNamezhangxi/retinaface", "ηλ/(1−α) = 5.0002e-6", 5.0002e-6, rate=5e-7),
    Known(
        "retinaface_sgdm", "UserNamezhangxi/retinaface, settings given", "ηλ/(1−α) = 5.0002e-6", 5.0002e-6, SGD, 5e-7
    ),
    Known("keras_resnet20_adam_l2", "jasonyl13579/GTAttackPod", "Adam + L2: no rate of decay", None),
    Known("protonet_adam_legacy", "linhexiu/prototype-pytorch", "no decay", 0.0, ADAM),
    Known("dncnn_whole_module", "xydasixi/Image-Denoising", "no decay", 0.0, ADAM),
    Known("mameformer_adamw", "shuichi/MameFormer", "2e-4 × 0.01, in float32 2.02656e-6", ROUNDED),
    Known("koopman_numpy_ema", "jimaka/koopman_control", "ηλ as stored, 1.192e-7 in float32", 2.0**-23),
    Known("tf1_saver_rnet", "AITTSMD/MTCNN-Tensorflow", "no decay of the classifier", 0.0),
    Known("caffe_quick", "BXuan694/Caffe", "4.32437e-6 per step, momentum in it", 4.32437e-6, rate=4.32437e-7),
    Known("chainer_snapshot", "bybike1/chainer_template", "no decay", 0.0),
)


@dataclass(frozen=True)
class Interval:
    """One printed interval and its truth."""

    kind: str
    low: float
    high: float
    truth: float

    @property
    def holds(self) -> bool:
        """Whether it holds the truth, to the digits that the truth is known to (five)."""
        slack = 5e-6 * abs(self.truth)
        return self.low - slack <= self.truth <= self.high + slack


def intervals(report: Report, decay: float | None, rate: float | None) -> Iterator[Interval]:
    """Every interval of a report whose truth follows from the decay per recorded step (`rate`: ηλ before momentum)."""
    for row in report.clocks.iter_rows(named=True):
        if decay is not None and row["decay_per_step_high"] is not None:
            low = -inf if row["decay_per_step_low"] is None else row["decay_per_step_low"]
            yield Interval("decay clocks", low, row["decay_per_step_high"], decay)
    for row in report.schedule.iter_rows(named=True):
        if decay is not None and row["sum_decay_low"] is not None and row["sum_decay_high"] is not None:
            own = (decay if rate is None else rate) * (row["step_to"] - row["step_from"])
            yield Interval("Σηλ", row["sum_decay_low"], row["sum_decay_high"], own)
    for row in report.fits.iter_rows(named=True):
        if row["level"] is None or row["low"] is None or row["high"] is None:
            continue
        if row["quantity"] == "relaxation_rate_ratio":
            yield Interval("relaxation rate / theory", row["low"], row["high"], 1.0)
        if row["quantity"] == "decay_from_data" and decay is not None:
            yield Interval("decay from data", row["low"], row["high"], decay)


def main() -> None:
    """The table, and in all."""
    folder = Path(sys.argv[1])
    print("| run (github.com/) | what is known per step | printed intervals | hold it |\n|---|---|---|---|")
    total = held = 0
    for known in RUNS:
        place = folder / known.folder
        if not place.is_dir():
            continue
        report = smd.analyze(place, settings=known.settings or None)
        kinds: dict[str, list[bool]] = {}
        for interval in intervals(report, known.decay, known.rate):
            kinds.setdefault(interval.kind, []).append(interval.holds)
        said = "; ".join(f"{kind} {sum(ok)} of {len(ok)}" for kind, ok in kinds.items()) or "–"
        count, good = sum(map(len, kinds.values())), sum(sum(ok) for ok in kinds.values())
        total, held = total + count, held + good
        print(f"| {known.source} | {known.words} | {count} | {said} |", flush=True)
    print(f"\n{held} of {total} hold what is known: {100 * (total - held) / max(total, 1):.1f} % exclude it.")


if __name__ == "__main__":
    main()
