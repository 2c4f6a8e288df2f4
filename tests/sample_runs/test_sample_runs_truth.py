"""The sample runs against their own truth, and the truth against theory: nothing of the product takes part."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

RUNS = Path(__file__).resolve().parents[2] / "sample_runs"
ALPHA, LAMBDA = 0.9, 1e-3
SETTLED = round(
    10 / (1 - ALPHA)
)  # steps after a start or a change of the learning rate that the identity does not hold

Weights = dict[str, NDArray[np.float64]]


def model_state(path: Path) -> dict[str, torch.Tensor]:
    """What one checkpoint holds of the model."""
    return load_file(path / "model.safetensors") if path.is_dir() else torch.load(path, weights_only=True)["model"]


def weights(path: Path) -> Weights:
    """The saved matrices of one checkpoint, float64."""
    return {name: w.double().numpy() for name, w in model_state(path).items() if w.ndim >= 2}


def checkpoints(run: str) -> dict[int, Path]:
    """Step -> file or folder, in order."""
    found = {int(p.stem.split("_")[1]): p for p in (RUNS / run).glob("step_*.pt")}
    found |= {int(p.name.split("-")[1]): p for p in (RUNS / run).glob("checkpoint-*")}
    return dict(sorted(found.items()))


def truth(run: str) -> dict[str, NDArray]:
    """Everything in the truth file."""
    with np.load(RUNS / "truth" / f"{run}.npz") as file:
        return {key: file[key] for key in file.files}


def angle(u: NDArray[np.float64], v: NDArray[np.float64]) -> float:
    """Kahan's angle between two tensors."""
    a, b = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return 2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


def test_both_runs_are_complete_and_small():
    size = sum(p.stat().st_size for p in RUNS.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert size < 30e6
    for run, least in (("resnet_sgdm", 60), ("qknorm_adamw", 30)):
        steps = list(checkpoints(run))
        assert len(steps) >= least
        assert steps == truth(run)["checkpoint_step"].tolist()
        assert sum(b - a == 1 for a, b in zip(steps, steps[1:], strict=False)) >= 5
        assert (RUNS / "truth" / f"{run}.npz").stat().st_size < 4e6


@pytest.mark.parametrize("run", ["resnet_sgdm", "qknorm_adamw"])
def test_saved_weights_are_those_of_the_truth(run: str):
    t = truth(run)
    names = t["tensors"].tolist()
    before: Weights | None = None
    for i, (step, path) in enumerate(checkpoints(run).items()):
        now = weights(path)
        assert set(now) == set(names)
        norms = np.array([np.linalg.norm(now[n]) for n in names])
        np.testing.assert_allclose(norms, t["checkpoint_norm"][i], rtol=1e-12)
        np.testing.assert_allclose(norms, t["norm"][step], rtol=1e-6)
        if before is not None:
            angles = np.array([angle(before[n], now[n]) for n in names])
            np.testing.assert_allclose(angles, t["checkpoint_angle"][i], rtol=1e-9)
            if step - t["checkpoint_step"][i - 1] == 1:
                np.testing.assert_allclose(angles, t["angle"][step], rtol=1e-6)
        before = now


@pytest.mark.parametrize("run", ["resnet_sgdm", "qknorm_adamw"])
def test_units_add_up_to_their_tensor(run: str):
    t = truth(run)
    names = t["tensors"].tolist()
    apart = [n for n in names if f"{n}:norm" in t]
    assert len(apart) >= 2
    for name in apart:
        i = names.index(name)
        whole = np.sqrt((t[f"{name}:norm"].astype(np.float64) ** 2).sum(1))
        np.testing.assert_allclose(whole, t["norm"][:, i], rtol=1e-6)
        units = np.sqrt((t[f"{name}:angle"][1:].astype(np.float64) ** 2).mean(1))
        np.testing.assert_allclose(units, t["unit_angle"][1:, i], rtol=1e-6)


def test_resnet_files_say_what_the_trainer_did():
    t = truth("resnet_sgdm")
    drop = int(t["drop"])
    for step, path in checkpoints("resnet_sgdm").items():
        state = torch.load(path, weights_only=True)
        assert state["step"] == step
        decayed, spared = state["optimizer"]["param_groups"]
        assert decayed["lr"] == pytest.approx(0.1 if step < drop else 0.02)
        assert (decayed["weight_decay"], spared["weight_decay"]) == (LAMBDA, 0.0)
        assert len(state["optimizer"]["state"]) == (0 if step == 0 else 7 + 12 + 1)
        assert state["scheduler"]["last_epoch"] == state["epoch"] == step // 32
    assert t["learning_rate"][drop] == 0.1
    assert t["learning_rate"][drop + 1] == pytest.approx(0.02)
    assert t["accuracy"] > 0.95


def test_qknorm_files_have_the_trainers_layout():
    t = truth("qknorm_adamw")
    for step, path in checkpoints("qknorm_adamw").items():
        state = json.loads((path / "trainer_state.json").read_text())
        assert state["global_step"] == step
        for entry in state["log_history"]:
            assert entry["learning_rate"] == pytest.approx(float(t["learning_rate"][entry["step"]]))
        optimizer = torch.load(path / "optimizer.pt", weights_only=True)
        if step < len(t["learning_rate"]) - 1:
            assert optimizer["param_groups"][0]["lr"] == pytest.approx(float(t["learning_rate"][step + 1]))
        assert set(optimizer["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
        assert (path / "config.json").exists()
    assert t["accuracy"] > 0.8


def windows(t: dict[str, NDArray]) -> list[tuple[int, int]]:
    """Intervals between checkpoints at least 5/(1−α) long, away from the start and from the drop."""
    steps, drop = t["checkpoint_step"].tolist(), int(t["drop"])
    pairs = [(a, b) for a, b in zip(steps, steps[1:], strict=False) if b - a >= SETTLED // 2 and a >= SETTLED]
    return [(a, b) for a, b in pairs if b <= drop or a >= drop + SETTLED]


def identity_errors(t: dict[str, NDArray], norm: NDArray, turned: NDArray) -> NDArray[np.float64]:
    """Relative error of θ₁² = [2ηλ + (1−α) d ln‖w‖²/dt]/(1+α) against the logged rms angle; [windows, columns]."""
    norm, turned = norm.astype(np.float64), turned.astype(np.float64)
    errors = []
    for a, b in windows(t):
        x = LAMBDA * t["learning_rate"][a + 1 : b + 1].mean()
        squared = (2 * x + (1 - ALPHA) * 2 * np.log(norm[b] / norm[a]) / (b - a)) / (1 + ALPHA)
        errors.append(np.sqrt(squared / (turned[a + 1 : b + 1] ** 2).mean(0)) - 1)
    return np.abs(np.array(errors))


def test_norms_alone_tell_the_angular_update():
    t = truth("resnet_sgdm")
    names = t["tensors"].tolist()
    convs = [i for i, n in enumerate(names) if n != "fc.weight"]
    assert len(windows(t)) > 40
    layers = identity_errors(t, t["norm"][:, convs], t["angle"][:, convs])
    filters = [
        identity_errors(t, t[f"{n}:norm"], t[f"{n}:angle"]).ravel()
        for n in ("layer1.conv1.weight", "layer2.conv2.weight")
    ]
    for errors in (layers, np.concatenate(filters)):
        assert np.median(errors) < 0.03
        assert np.percentile(errors, 95) < 0.10
    classifier = identity_errors(t, t["norm"][:, [names.index("fc.weight")]], t["angle"][:, [names.index("fc.weight")]])
    assert np.median(classifier) > 0.2  # it is not scale-invariant: the identity must fail


def test_equilibrium_is_reached_before_the_drop_and_again_at_the_end():
    t = truth("resnet_sgdm")
    convs = [i for i, n in enumerate(t["tensors"].tolist()) if n != "fc.weight"]
    drop, end = int(t["drop"]), len(t["learning_rate"]) - 1
    for start, stop in ((drop - 1000, drop), (end - 1000, end)):
        measured = np.sqrt((t["angle"][start + 1 : stop + 1, convs].astype(np.float64) ** 2).mean(0))
        ratio = measured / math.sqrt(2 * LAMBDA * t["learning_rate"][stop] / (1 + ALPHA))
        assert np.median(np.abs(ratio - 1)) < 0.03
        assert np.all(np.abs(ratio - 1) < 0.1)
    dip = np.sqrt((t["angle"][drop + 21 : drop + 121, convs].astype(np.float64) ** 2).mean(0))
    expected = math.sqrt(2 * LAMBDA * 0.02 / (1 + ALPHA) / 5)  # η divided by 5: first below the new equilibrium by √5
    assert np.median(dip / expected) == pytest.approx(1, abs=0.15)


def test_heads_turn_as_adamw_says_near_the_schedules_top():
    t = truth("qknorm_adamw")
    beta1, decay = float(t["beta1"]), float(t["weight_decay"])
    for name in (n for n in t["tensors"].tolist() if "q_proj" in n or "k_proj" in n):
        measured = np.sqrt((t[f"{name}:angle"][801:1201].astype(np.float64) ** 2).mean(0))
        x = decay * t["learning_rate"][801:1201].mean()
        assert np.allclose(measured / math.sqrt(2 * x * (1 - beta1) / (1 + beta1)), 1, atol=0.25)
        assert measured.shape == (4,)


def test_unused_rows_of_the_vocabulary_feel_decay_alone():
    t = truth("qknorm_adamw")
    found = checkpoints("qknorm_adamw")
    first, last = min(found), max(found)
    rows = [weights(found[s])["model.embed_tokens.weight"][28:] for s in (first, last)]
    kept = (1 - float(t["weight_decay"]) * t["learning_rate"][first + 1 : last + 1]).astype(np.float32)  # as torch does
    expected = np.exp(np.log(kept.astype(np.float64)).sum())
    np.testing.assert_allclose(rows[1] / rows[0], expected, rtol=2e-4)


@pytest.mark.parametrize(("factory", "run"), [("resnet", "resnet_sgdm"), ("qknorm", "qknorm_adamw")])
def test_factories_build_the_models_that_were_saved(factory: str, run: str):
    spec = importlib.util.spec_from_file_location("sample_make", RUNS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    model = getattr(make, factory)()
    model.load_state_dict(model_state(list(checkpoints(run).values())[-1]))
    model.eval()
    assert torch.isfinite(model(*getattr(make, f"{factory}_inputs")())).all()
