"""Reports made up from the theory, with every kind of layer and gap that a real one has, to test files and views."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.fits.summary import SCHEMA as LAYERS
from smd_analyze.records.report import Report
from smd_analyze.records.statistics import UnitSeries

LR, DECAY, MOMENTUM, SPACING, DROP = 0.1, 5e-4, 0.9, 2000, 0.6


def layer_names(layers: int) -> list[str]:
    """Names as in a ResNet: conv1, stages of blocks of two convolutions, fc."""
    stages = 3 if layers <= 20 else 4
    blocks = math.ceil((layers - 2) / (2 * stages))
    inner = [
        f"layer{stage + 1}.{block}.conv{conv + 1}"
        for stage in range(stages)
        for block in range(blocks)
        for conv in (0, 1)
    ]
    return ["conv1", *inner[: layers - 2], "fc"]


def make_report(layers: int = 8, checkpoints: int = 13, seed: int = 0) -> Report:
    """A run of SGD with momentum whose learning rate drops ×0.1 after `DROP` of the steps.

    The last layer (fc) is not invariant, the last but one guessed, the second jointly invariant; where there are more
    than 5, the fourth is dead. The third lacks its second checkpoint. One layer was measured in consecutive steps.
    """
    rng = np.random.default_rng(seed)
    names = layer_names(layers)
    steps = [SPACING * k for k in range(checkpoints)]
    rates = [LR if step <= DROP * steps[-1] else LR / 10 for step in steps]
    kinds = {name: _kind(index, layers) for index, name in enumerate(names)}
    norms = {name: _norms(rng, steps, rates) for name in names}
    statistics, updates, predictions = [], [], []
    for name in names:
        status = kinds[name][0]
        for k, step in enumerate(steps):
            gone = name == names[2] and k == 1
            statistics.append(_statistics(rng, name, step, k, norms[name][k], rates[k], gone))
            if k:
                updates += _updates(norms[name], name, steps, k, rates[k], name == names[1], status)
            if status != "dead":
                predictions.append(_prediction(name, step, k, norms[name][k], rates[k], status))
    rows = [_layer(rng, name, kinds[name], norms[name][-1], rates[-1]) for name in names]
    return Report(
        verdict=f"{layers - 2} of {layers} layers are in balance; 1 is not scale-invariant, 1 is dead",
        layers=pl.DataFrame(rows, schema=LAYERS),
        checkpoints=pl.DataFrame(
            {
                "step": steps,
                "path": [f"ckpts/step_{step:06d}.pt" for step in steps],
                "format": "torch zip",
                "framework": "plain",
                "nbytes": [1_000_000] * checkpoints,
            }
        ),
        settings=pl.DataFrame(_settings(steps, rates), schema=SETTINGS),
        parameters=pl.DataFrame(
            {
                "parameter": [f"{name}.weight" for name in names],
                "slice": ["0:64" if name == names[1] else "" for name in names],
                "shape": [[64, 64, 3, 3]] * layers,
                "role": ["linear" if name == "fc" else "conv" for name in names],
                "parameter_group": ["0"] * layers,
                "status": [kinds[name][0] for name in names],
                "granularity": [kinds[name][1] for name in names],
                "group": names,
                "evidence": [kinds[name][2] for name in names],
                "reason": ["followed by a batch normalization"] * layers,
            }
        ),
        groups=pl.DataFrame(
            {
                "group": names,
                "status": [kinds[name][0] for name in names],
                "granularity": [kinds[name][1] for name in names],
                "units": [4] * layers,
                "numel": [36864] * layers,
                "parameter_group": ["0"] * layers,
                "members": [[f"{name}.weight"] for name in names],
                "evidence": [kinds[name][2] for name in names],
                "role": ["linear" if name == "fc" else "conv" for name in names],
                "reason": ["followed by a batch normalization"] * layers,
            }
        ),
        statistics=pl.DataFrame(statistics, schema=STATISTICS),
        clocks=pl.DataFrame(schema=CLOCKS),
        schedule=pl.DataFrame(_schedule(steps, rates), infer_schema_length=None),
        angular_updates=pl.DataFrame(updates, schema=UPDATES),
        predictions=pl.DataFrame(predictions, schema=PREDICTIONS),
        fits=pl.DataFrame(_fits(names), schema=FITS),
        findings=pl.DataFrame(_findings(names)),
        provenance={
            "version": "0.1.0",
            "command": "smd-analyze ckpts/",
            "path": "ckpts/",
            "device": "cpu",
            "time": "2026-01-02T03:04:05Z",
            "step_unit": "optimizer steps",
            "ordered_by": "step numbers in file names",
            "groups_source": "names and shapes",
        },
        units=lambda name: _units(name, steps) if name in names else None,
    )


def empty_report() -> Report:
    """A report whose tables have their columns, but no rows."""
    full = make_report(3)
    tables = {name: value.clear() for name, value in vars(full).items() if isinstance(value, pl.DataFrame)}
    return replace(full, **tables, units=lambda _: None)


def _kind(index: int, layers: int) -> tuple[str, str, str]:
    if index == layers - 1:
        return "not invariant", "", "proved"
    if index == layers - 2:
        return "invariant", "unit", "guessed"
    if index == 1:
        return "jointly invariant", "whole", "proved"
    if index == 3 and layers > 5:
        return "dead", "", "confirmed"
    return "invariant", "unit", "proved and confirmed"


def _angle(rate: float) -> float:
    return math.sqrt(2 * rate * DECAY / (1 + MOMENTUM))


def _norms(rng: np.random.Generator, steps: list[int], rates: list[float]) -> list[float]:
    """‖w‖ from S' = −4xS + 2η²L in closed form from checkpoint to checkpoint."""
    strength = rng.uniform(0.5, 20.0)
    square = (rng.uniform(4.0, 9.0)) ** 4
    found = [square]
    for before, step, rate in zip(steps, steps[1:], rates[1:], strict=False):
        decay = rate * DECAY / (1 - MOMENTUM)
        rest = rate * strength / (2 * DECAY * (1 - MOMENTUM))
        square = rest + (square - rest) * math.exp(-4 * decay * (step - before))
        found.append(square)
    return [float(value**0.25 * (1 + 0.002 * rng.standard_normal())) for value in found]


def _statistics(rng: Any, name: str, step: int, k: int, norm: float, rate: float, gone: bool) -> dict[str, Any]:
    angle = min(1.4, _angle(rate) * math.sqrt(SPACING) * 0.5) * (1 + 0.05 * rng.standard_normal())
    return {
        "group": name,
        "step": step,
        "weight_norm": None if gone else norm,
        "rms_weight": None if gone else norm / 192,
        "angle": None if gone or k == 0 else angle,
        "angle_from_first": None if gone else min(1.5, 0.4 * math.sqrt(k)),
        "nonfinite": 0,
    }


def _updates(
    norms: list[float], name: str, steps: list[int], k: int, rate: float, fine: bool, status: str
) -> list[dict[str, Any]]:
    slope = 2 * math.log(norms[k] / norms[k - 1]) / SPACING
    square = (1 - MOMENTUM) / (1 + MOMENTUM) * (2 * rate * DECAY / (1 - MOMENTUM) + slope)
    implied = math.sqrt(max(square, 1e-8))
    row = {"group": name, "step_from": steps[k - 1], "step_to": steps[k], "steps_covered": SPACING}
    found = [
        row
        | {
            "method": "norms",
            "angular_update": None if k == 2 else implied,
            "angular_update_low": None if k == 2 else implied * 0.98,
            "angular_update_high": None if k == 2 else implied * 1.02,
            "independent": False,
        }
    ]
    if status != "dead" and k % 3 == 0:
        angle = implied * 1.01
        found.append(
            row
            | {
                "method": "buffer",
                "steps_covered": 1,
                "angular_update": angle,
                "angular_update_low": angle * 0.95,
                "angular_update_high": angle * 1.05,
                "independent": True,
            }
        )
    if fine and k == 4:
        one = {"method": "consecutive", "step_from": steps[k] - 1, "steps_covered": 1, "independent": True}
        ends = {"angular_update": implied, "angular_update_low": None, "angular_update_high": None}
        found.append(row | one | ends)
    return found


def _prediction(name: str, step: int, k: int, norm: float, rate: float, status: str) -> dict[str, Any]:
    free = status == "not invariant"
    return {
        "group": name,
        "step": step,
        "equilibrium_angular_update": _angle(rate),
        "equilibrium_norm": None if free else 3.0 * rate**0.25 / LR**0.25,
        "equilibrium_norm_low": None if free else 2.9 * rate**0.25 / LR**0.25,
        "equilibrium_norm_high": None if free else 3.1 * rate**0.25 / LR**0.25,
        "norm_basis": None if free else "extrapolated",
        "expected_norm": None if free else norm * 1.01,
        "expected_norm_low": None if free else norm * 0.96,
        "expected_norm_high": None if free else norm * 1.05,
        "diffusion_angle": None if k == 0 else min(1.5, _angle(rate) * math.sqrt(SPACING * 19)),
        "half_lives": None if free else 2.5 * k,
        "source": "sgd with momentum",
    }


def _layer(rng: Any, name: str, kind: tuple[str, str, str], norm: float, rate: float) -> dict[str, Any]:
    status, granularity, evidence = kind
    theta, dead = _angle(rate), status == "dead"
    implied, measured = theta * (1 + 0.03 * rng.standard_normal()), theta * (1 + 0.02 * rng.standard_normal())
    state = {
        "invariant": "norm stationary, EI = 0.02 ± 0.01; agrees with theory",
        "jointly invariant": "still relaxing, EI = −0.21 ± 0.03",
        "dead": "dead: the weights only decay",
        "not invariant": "reference only: norm grows",
    }[status]
    if evidence == "guessed":
        state += " (if invariant)"
    row: dict[str, Any] = dict.fromkeys(LAYERS)
    row |= {
        "group": name,
        "role": "linear" if name == "fc" else "conv",
        "status": status,
        "evidence": evidence,
        "granularity": granularity,
        "units": 64,
        "numel": 36864,
        "parameter_group": "0",
        "weight_norm": norm,
        "state": state,
        "advice": "train longer before judging it" if status == "jointly invariant" else None,
    }
    if dead:
        return row
    row |= {"implied": implied, "implied_low": implied * 0.98, "implied_high": implied * 1.02, "equilibrium": theta}
    row |= {"effective_learning_rate": rate / norm**2, "half_lives": 12.3}
    if status == "not invariant":
        return row
    row |= {
        "level": norm * 0.99,
        "level_basis": "measured" if name == "conv1" else "extrapolated",
        "ratio": measured / theta,
        "ratio_low": measured / theta * 0.95,
        "ratio_high": measured / theta * 1.05,
        "measured": measured,
        "measured_low": measured * 0.95,
        "measured_high": measured * 1.05,
        "equilibrium_index": 0.02,
        "equilibrium_index_low": 0.01,
        "equilibrium_index_high": 0.03,
    }
    return row


def _settings(steps: list[int], rates: list[float]) -> list[dict[str, Any]]:
    found = []
    for step, rate in zip(steps, rates, strict=True):
        for name, value, text in (
            ("learning_rate", rate, None),
            ("weight_decay", DECAY, None),
            ("momentum", MOMENTUM, None),
            ("optimizer", None, "sgd"),
        ):
            row = {"step": step, "parameter_group": "0", "name": name, "value": value, "text": text}
            found.append(row | {"kind": "in force", "source": f"ckpts/step_{step:06d}.pt", "applies": "next update"})
    return found


def _schedule(steps: list[int], rates: list[float]) -> list[dict[str, Any]]:
    found = []
    for k in range(1, len(steps)):
        first, last = rates[k - 1], rates[k]
        found.append(
            {
                "parameter_group": "0",
                "step_from": steps[k - 1],
                "step_to": steps[k],
                "optimizer": "sgd",
                "sum_learning_rate": last * SPACING,
                "sum_learning_rate_low": None,
                "sum_learning_rate_high": None,
                "sum_decay": last * SPACING * DECAY,
                "sum_decay_low": last * SPACING * DECAY * 0.999,
                "sum_decay_high": last * SPACING * DECAY * 1.001,
                "momentum": MOMENTUM,
                "source": f"ckpts/step_{steps[k]:06d}.pt",
                "weight_decay": DECAY,
                "dampening": 0.0,
                "nesterov": False,
                "beta1": None,
                "beta2": None,
                "eps": None,
                "decoupled": None if k == 1 else False,
                "learning_rate_first": first,
                "learning_rate_last": last,
                "learning_rate_changes": first != last,
            }
        )
    return found


def _fits(names: list[str]) -> list[dict[str, Any]]:
    row = {"quantity": "relaxation_rate", "value": 2e-3, "low": 1.8e-3, "high": 2.3e-3, "level": 0.95}
    return [
        row | {"group": name, "unit": None, "method": "AR(1)", "outcome": "settled", "advice": None}
        for name in names[:-1]
    ]


def _findings(names: list[str]) -> dict[str, list[Any]]:
    return {
        "code": ["stray-file", "settings-conflict", "settings-conflict", "not-analysed"],
        "severity": ["note", "warning", "warning", "error"],
        "where": ["ckpts/notes.txt", "step_000000.pt", "step_002000.pt", f"{names[0]}.bias"],
        "message": ["no checkpoint", "λ differs from config.json", "λ differs from config.json", "holds 3 NaN"],
        "remedy": ["", "say --weight-decay", "say --weight-decay", None],
    }


def _units(name: str, steps: list[int]) -> UnitSeries:
    rng = np.random.default_rng(len(name))
    values = rng.uniform(1.0, 2.0, (5, len(steps), 4))
    values[1:3, 0] = np.nan
    directions = (values[3], values[4]) if name != "fc" else (None, None)
    return UnitSeries(name, np.array(steps, dtype=np.int64), values[0], values[1], values[2], *directions)


def _schema(numbers: str, words: str = "", integers: str = "", booleans: str = "") -> dict[str, Any]:
    kinds = ((words, pl.String), (integers, pl.Int64), (numbers, pl.Float64), (booleans, pl.Boolean))
    return {name: dtype for names, dtype in kinds for name in names.split()}


SETTINGS = {
    name: pl.Int64 if name == "step" else pl.Float64 if name == "value" else pl.String
    for name in ["step", "parameter_group", "name", "value", "text", "kind", "source", "applies"]
}
STATISTICS = {"group": pl.String, "step": pl.Int64} | _schema("weight_norm rms_weight angle angle_from_first")
STATISTICS["nonfinite"] = pl.Int64
CLOCKS = _schema(
    "decay_per_step decay_per_step_low decay_per_step_high", "clock parameter functional", "step_from step_to"
)
UPDATES = _schema(
    "angular_update angular_update_low angular_update_high",
    "group method",
    "step_from step_to steps_covered",
    "independent",
)
PREDICTIONS = {"group": pl.String, "step": pl.Int64, "equilibrium_angular_update": pl.Float64} | _schema(
    "equilibrium_norm equilibrium_norm_low equilibrium_norm_high expected_norm expected_norm_low expected_norm_high "
    "diffusion_angle half_lives",
    "norm_basis source",
)
FITS = _schema("value low high level", "group quantity method outcome advice", "unit")
