"""Which files are looked at, and what a run tells of them."""

import json
from pathlib import Path

import pytest
import torch

from smd_analyze.loading.discovery import load_run
from smd_analyze.schedule.resolve import resolve_schedule


def save(folder: Path, steps=(10, 20), name="step_{}.pt", **more):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for step in steps:
        weights = {"fc.weight": torch.randn(4, 3), "fc.bias": torch.randn(4)}
        kept = {k: v(step) if callable(v) else v for k, v in more.items()}
        torch.save({"model": weights, "step": step, **kept}, folder / name.format(step))


def configured(run, name="learning_rate"):
    return [(s.value, s.source) for s in run.checkpoints[-1].settings if s.name == name and s.kind == "configured"]


def test_lightnings_folder_from_wherever_it_is_named(tmp_path):
    version = tmp_path / "lightning_logs" / "version_0"
    save(version / "checkpoints")
    (version / "hparams.yaml").write_text("lr: 0.1\n")
    rows = "".join(f"{i},{0.1 / (i + 1)}\n" for i in range(20))
    (version / "metrics.csv").write_text("step,lr-AdamW\n" + rows)
    other = tmp_path / "lightning_logs" / "version_1"
    other.mkdir()
    (other / "hparams.yaml").write_text("lr: 0.7\nweight_decay: 0.3\n")
    for root in (tmp_path, version, version / "checkpoints"):
        run = load_run(root)
        assert [v for v, _ in configured(run)] == [0.1], root
        assert configured(run, "weight_decay") == []
        (log,) = run.logs
        assert (log.label, len(log.at), log.applies) == ("lr-AdamW", 20, "next update")
        assert [s.text for s in run.checkpoints[0].settings if s.name == "optimizer"] == ["AdamW"]
        total = sum(0.1 / (i + 1) for i in range(10, 20))
        assert resolve_schedule(run).table["sum_learning_rate"].to_list() == pytest.approx([total])


def test_the_parent_is_looked_at_only_if_the_folder_is_a_store_of_checkpoints(tmp_path):
    (tmp_path / "args.yaml").write_text("lr: 0.1\n")
    save(tmp_path / "run1")
    assert configured(load_run(tmp_path / "run1")) == []
    assert configured(load_run(tmp_path)) == [(0.1, "args.yaml, lr")]
    save(tmp_path / "weights")
    assert configured(load_run(tmp_path / "weights")) == []  # run1 lies beside it: whose are the arguments?
    (tmp_path / "run1").rename(tmp_path / "logs")
    assert configured(load_run(tmp_path / "weights")) == [(0.1, "../args.yaml, lr")]


def test_the_nearest_file_wins_and_one_that_contradicts_it_is_not_used(tmp_path):
    save(tmp_path / "a" / "ckpt")
    (tmp_path / "config.yaml").write_text("lr: 0.1\nweight_decay: 0.01\n")
    (tmp_path / "a" / "config.yaml").write_text("lr: 0.2\n")
    run = load_run(tmp_path)
    assert configured(run) == [(0.2, "a/config.yaml, lr")]
    assert configured(run, "weight_decay") == []
    (finding,) = [f for f in run.findings if f.code == "sidecars-disagree"]
    assert "not used" in finding.remedy
    assert "0.1" in finding.message
    assert "a/config.yaml" in finding.message


def test_what_the_checkpoint_says_itself_is_not_said_twice(tmp_path):
    save(tmp_path, args={"lr": 0.1})
    (tmp_path / "args.json").write_text(json.dumps({"lr": 0.1, "momentum": 0.9}))
    run = load_run(tmp_path)
    assert configured(run) == [(0.1, "args.lr")]
    assert configured(run, "momentum") == [(0.9, "args.json, momentum")]


def test_the_optimizers_state_stands_above_every_file(tmp_path):
    def state(_step):
        return torch.optim.SGD(
            [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(4))], lr=0.05
        ).state_dict()

    save(tmp_path, optimizer=state)
    (tmp_path / "hparams.yaml").write_text("lr: 0.1\n")
    (tmp_path / "log.csv").write_text("step,lr\n" + "".join(f"{i},0.3\n" for i in range(1, 21)))
    found = resolve_schedule(load_run(tmp_path))
    assert found.table["sum_learning_rate"].to_list() == pytest.approx([0.5])
    told = {f.code: f.message for f in found.findings}
    assert "hparams.yaml, lr says 0.1, in force was 0.05" in told["conflict"]
    assert "log.csv logs 0.3 to 0.3" in told["log-not-used"]


def test_epochs_of_a_log_become_steps(tmp_path):
    save(tmp_path, (10, 20, 30), epoch=lambda step: step // 5 - 1)
    (tmp_path / "summary.csv").write_text("epoch,lr\n" + "".join(f"{e},{0.1 * 0.5**e}\n" for e in range(6)))
    run = load_run(tmp_path)
    assert run.logs[0].at == (5, 10, 15, 20, 25, 30)
    sums = [5 * 0.1 * (0.5**2 + 0.5**3), 5 * 0.1 * (0.5**4 + 0.5**5)]
    assert resolve_schedule(run).table["sum_learning_rate"].to_list() == pytest.approx(sums)


def test_a_log_that_cannot_be_placed_is_told(tmp_path):
    save(tmp_path, (1000, 2000))
    (tmp_path / "summary.csv").write_text("epoch,lr\n0,0.1\n1,0.05\n")
    run = load_run(tmp_path)
    assert run.logs == ()
    (finding,) = [f for f in run.findings if f.code == "log-unplaced"]
    assert "summary.csv" in finding.message
    assert "--steps-per-epoch" in finding.remedy


def test_damaged_and_foreign_files_stop_nothing(tmp_path):
    save(tmp_path)
    (tmp_path / "hparams.yaml").write_text("lr: [")
    (tmp_path / "run-abc.wandb").write_bytes(b"\0" * 64)
    (tmp_path / "data.yaml").write_text("lr: 9")
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "events.out.tfevents.1.h").write_bytes(b"\xff" * 100)
    (tmp_path / "metrics.csv").write_bytes(b"\0\xff" * 100)
    run = load_run(tmp_path)
    assert configured(run) == []
    assert {f.code for f in run.findings} >= {"unreadable-sidecar", "sidecar-not-read"}
    assert not any("tokenizer" in f.where or "data.yaml" in f.where for f in run.findings)


def test_hydras_and_mlflows_places(tmp_path):
    save(tmp_path / "checkpoints")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("optim:\n  lr: 0.1\n  _target_: torch.optim.SGD\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {sweeper: {params: {lr: 3}}}\n")
    for name, text in (("params/weight_decay", "0.01"), ("params/lr", "0.1"), ("metrics/lr", "1 0.1 0\n2 0.05 20\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run = load_run(tmp_path)
    assert configured(run) == [(0.1, "params/lr, lr")]
    assert [v for v, _ in configured(run, "weight_decay")] == [0.01]
    assert [log.source for log in run.logs] == ["metrics/lr"]
    assert [s.text for s in run.checkpoints[0].settings if s.name == "optimizer"] == ["SGD"]


def test_several_learning_rates_are_left_to_the_caller(tmp_path):
    save(tmp_path)
    (tmp_path / "args.json").write_text(json.dumps({"lr_g": 1e-4, "lr_d": 4e-4, "min_lr": 0.0}))
    run = load_run(tmp_path)
    assert configured(run) == []
    assert configured(run, "lr_d") == [(4e-4, "args.json, lr_d")]
    (finding,) = [f for f in run.findings if f.code == "several-learning-rates"]
    assert "lr_g = 0.0001, lr_d = 0.0004" in finding.message


def test_a_tree_of_arguments_in_the_checkpoint_is_looked_into(tmp_path):
    save(tmp_path, config={"optimizer": {"name": "SGD", "lr": 0.1}, "model": {"norm": {"eps": 1e-3}}})
    run = load_run(tmp_path)
    assert configured(run) == [(0.1, "config.optimizer.lr")]
    assert configured(run, "eps") == []
