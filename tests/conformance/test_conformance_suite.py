"""The suite itself can fail: every kind of mix-up is seen, and a sound run is passed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .__main__ import run
from .comparing import compare
from .truth import as_json, fingerprint, same

STEPS = (5, 10)


def write(folder: Path, truth: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Two checkpoints of a convolution and a dense layer with AdamW, and their truth, changed as the test likes."""
    (folder / "run").mkdir()
    made = []
    for step in STEPS:
        torch.manual_seed(step)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 4))
        weights = [p for p in net.parameters() if p.ndim > 1]
        gains = [p for p in net.parameters() if p.ndim < 2]
        split = [{"params": weights, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(split, lr=step / 100)
        saved = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(saved, folder / "run" / f"step_{step}.pt")
        hyper = {"lr": step / 100, "weight_decay": [0.1, 0.0], "betas": [0.9, 0.999]}
        arrays = {n: as_json(t.numpy()) for n, t in net.state_dict().items()}
        made.append({"path": f"run/step_{step}.pt", "step": step, "hyper": hyper, "params": arrays})
    document = {"static": {"torch": torch.__version__}, "checkpoints": made}
    if truth:
        truth(document)
    (folder / "run.expected.json").write_text(json.dumps(document))


def test_a_sound_run_passes(tmp_path: Path) -> None:
    write(tmp_path)
    found = compare(tmp_path, "run")
    assert found.differences == []
    assert (found.counts["arrays equal"], found.counts["steps equal"], found.counts["hyper equal"]) == (16, 2, 8)
    assert found.counts["layouts right"] == 4
    assert run([str(tmp_path)]) == 0


def swap_arrays(document: dict[str, Any]) -> None:
    arrays = document["checkpoints"][0]["params"]
    arrays["1.weight"], arrays["1.running_mean"] = arrays["1.running_mean"], arrays["1.weight"]


def swap_checkpoints(document: dict[str, Any]) -> None:
    first, second = document["checkpoints"]
    first["params"], second["params"] = second["params"], first["params"]


def transpose(document: dict[str, Any]) -> None:
    torch.manual_seed(STEPS[0])
    kernel = torch.nn.Conv2d(3, 4, 3, bias=False).weight.detach().numpy()
    document["checkpoints"][0]["params"]["0.weight"] = as_json(kernel.transpose(0, 1, 3, 2))


def reverse(document: dict[str, Any]) -> None:
    document["checkpoints"].reverse()


def other_step(document: dict[str, Any]) -> None:
    document["checkpoints"][1]["step"] = 11


def lost_checkpoint(document: dict[str, Any]) -> None:
    document["checkpoints"].pop()


def more_checkpoints(document: dict[str, Any]) -> None:
    document["checkpoints"].append(document["checkpoints"][1] | {"path": "run/step_15.pt", "step": 15})


def other_rate(document: dict[str, Any]) -> None:
    document["checkpoints"][0]["hyper"]["lr"] *= 1.01


def groups_exchanged(document: dict[str, Any]) -> None:
    document["checkpoints"][0]["hyper"]["weight_decay"].reverse()


def another_library(document: dict[str, Any]) -> None:
    document["static"] = {"keras": "3"}


def more_arrays(document: dict[str, Any]) -> None:
    document["checkpoints"][0]["params"]["3.weight"] = as_json(np.full((4, 4), 7.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap_arrays, "has the content of"),
        (swap_checkpoints, "norm"),
        (transpose, "ordered sum"),
        (reverse, "order"),
        (other_step, "step 10"),
        (lost_checkpoint, "never written"),
        (more_checkpoints, "not among"),
        (other_rate, "learning_rate is"),
        (groups_exchanged, "weight_decay is"),
        (another_library, "output axis"),
        (more_arrays, "missing"),
    ],
)
def test_a_mix_up_is_seen(tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    write(tmp_path, change)
    found = compare(tmp_path, "run")
    assert any(words in difference for difference in found.differences), found.differences


def test_a_difference_is_an_exit_code_and_stands_in_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, other_rate)
    assert run([str(tmp_path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["totals"]["hyper differing"] == 1
    assert document["sequences"][0]["name"] == "run"


def test_a_value_in_the_file_that_was_not_found_is_a_difference(tmp_path: Path) -> None:
    write(tmp_path)
    truth = tmp_path / "run.expected.json"
    saved = torch.load(tmp_path / "run" / "step_5.pt", weights_only=True)
    truth.write_text(truth.read_text().replace('"hyper": {', '"hyper": {"momentum": 0.9, '))
    assert "momentum" not in saved["optimizer"]["param_groups"][0]
    assert any("momentum = 0.9 is in the file" in words for words in compare(tmp_path, "run").differences)


def test_what_has_no_truth_or_is_refused_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    (tmp_path / "run.expected.json").unlink()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "weights.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert run([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "no truth" in said
    assert "git lfs pull" in " ".join(said.split())


def test_fingerprints_tell_order_scale_and_sign_apart() -> None:
    array = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    true = fingerprint(array)
    assert same(fingerprint(array.astype(np.float64)), true)
    others = (
        array.T.reshape(4, 6),
        -array,
        array * 1.001,
        array[::-1],
        array[:, ::-1],
        np.roll(array, 97),
        array + 1e-3,
    )
    assert not any(same(fingerprint(other), true) for other in others)
