"""What scripts leave behind: lists of arrays, scikit-learn's objects, layers frozen at first, frames called steps."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from smd_analyze.errors import NothingToAnalyse
from smd_analyze.loading.discovery import load_run


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 4))


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        loss = model(torch.randn(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_lists_of_arrays_are_weights(tmp_path: Path) -> None:
    first = np.arange(32.0).reshape(8, 4)
    for epoch in range(3):
        tree = {"weights": [first + epoch, np.ones((4, 2))], "biases": [np.ones(4), np.ones(2)], "epoch": epoch}
        (tmp_path / f"epoch_{epoch}.pkl").write_bytes(pickle.dumps(tree))
    run = load_run(tmp_path)
    assert set(run.checkpoints[0].parameters) == {"weights.0", "weights.1", "biases.0", "biases.1"}
    assert np.array_equal(run.checkpoints[2].parameters["weights.0"].read(), first + 2)


def test_scikit_learns_perceptron(tmp_path: Path) -> None:
    perceptron = pytest.importorskip("sklearn.neural_network").MLPClassifier((6,), learning_rate_init=0.003)
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((64, 8)), rng.integers(0, 3, 64)
    held = []
    for i in range(3):
        perceptron.partial_fit(inputs, labels, classes=[0, 1, 2])
        (tmp_path / f"clf_{i}.pkl").write_bytes(pickle.dumps(perceptron))
        held.append((perceptron.coefs_[0].copy(), perceptron._optimizer.ms[0].copy()))
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert set(last.parameters) == {"coefs_.0", "coefs_.1", "intercepts_.0", "intercepts_.1"}
    assert last.parameters["coefs_.0"].layout == "IO"
    assert np.array_equal(last.parameters["coefs_.0"].read(), held[-1][0])
    assert np.array_equal(last.optimizer_state["coefs_.0"]["exp_avg"].read(), held[-1][1])
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    said = {s.name: s.value or s.text for s in last.settings}
    assert (said["learning_rate"], said["optimizer"]) == (0.003, "Adam")
    assert "weight_decay" not in said


def test_a_step_that_counts_frames_is_not_taken_for_updates(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for frames in (2048, 4096, 6144):
        trained(model, optimizer, 4)
        tree = {"agent": model.state_dict(), "optimizer": optimizer.state_dict(), "global_step": frames}
        torch.save(tree, tmp_path / f"agent_{frames}.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [4, 8, 12]
    (finding,) = [f for f in run.findings if f.code == "step-is-no-update"]
    assert "512" in finding.message
    assert [c.step for c in load_run(tmp_path, order="inside").checkpoints] == [2048, 4096, 6144]


def test_the_start_without_an_optimizers_state_changes_no_order(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in (0, 5, 10):
        trained(model, optimizer, 5 if step else 0)
        torch.save({"model": model.state_dict(), "opt": optimizer.state_dict()}, tmp_path / f"step_{step}.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [0, 5, 10]
    assert run.findings == ()


def test_layers_that_were_frozen_at_first_keep_their_weights(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Linear(6, 5), torch.nn.Linear(5, 4))
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1, momentum=0.9)
    for step in (1, 2, 3, 4):
        if step == 3:
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.001})
        trained(model, optimizer, 1)
        tree = {"model": model.state_dict(), "opt": optimizer.state_dict(), "step": step}
        torch.save(tree, tmp_path / f"{step}.pt")
    run = load_run(tmp_path)
    assert len(run.checkpoints) == 4
    assert all("0.weight" in c.parameters and "1.weight" not in c.parameters for c in run.checkpoints)
    assert set(run.parameter_groups["1"]) == {"0.weight", "0.bias"}
    assert not [f for f in run.findings if f.code == "parameter-missing"]


def test_many_states_in_one_file_are_named(tmp_path: Path) -> None:
    torch.save({step: network().state_dict() for step in (0, 10, 20)}, tmp_path / "trajectory.pt")
    with pytest.raises(NothingToAnalyse, match="3 states in one file"):
        load_run(tmp_path)


def test_text_without_a_checkpoints_name_and_single_arrays_are_no_warnings(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save(network().state_dict(), tmp_path / f"step_{step}.pt")
    (tmp_path / "NOTES").write_text("lr was too high")
    (tmp_path / "run-1.wandb").write_text("text")
    (tmp_path / "step_3.pt").write_text("text")
    np.save(tmp_path / "labels.npy", np.arange(4))
    found = {Path(f.where).name: f.severity for f in load_run(tmp_path).findings if f.code == "not-a-checkpoint"}
    assert found == {"step_3.pt": "note", "labels.npy": "note"}


def test_labels_of_other_runs_are_no_strays(tmp_path: Path) -> None:
    for fold in range(3):
        for epoch in (1, 2):
            torch.save(network(fold).state_dict(), tmp_path / f"fold{fold}_epoch{epoch}.pt")
        torch.save(network(fold).state_dict(), tmp_path / f"fold{fold}_best.pt")
        (tmp_path / f"v{fold}").mkdir()
    run = load_run(tmp_path)
    assert not [f for f in run.findings if f.code == "stray-file"]
    assert run.aliases.keys() == {"best"}


def test_many_sequences_are_one_finding_and_keep_their_own_numbers(tmp_path: Path) -> None:
    for seed in range(6):
        for step in (1, 2):
            torch.save(network(seed).state_dict(), tmp_path / f"net18_seed{seed}_step{step}.pt")
    run = load_run(tmp_path)
    assert list(run.runs) == [f"net18_seed{seed}_step#.pt" for seed in range(6)]
    (finding,) = [f for f in run.findings if f.code == "another-sequence"]
    assert "5 other sequences" in finding.message


def test_what_every_rank_saved_is_one_sequence(tmp_path: Path) -> None:
    for step in (1, 2):
        for rank in (0, 1):
            torch.save({"model": network(step).state_dict(), "step": step}, tmp_path / f"ckpt_{step}_rank{rank}.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1, 2]
    assert [(f.code, f.severity) for f in run.findings] == [("copies", "note")]
