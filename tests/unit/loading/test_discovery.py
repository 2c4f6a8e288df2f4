"""load_run on folders with the mess of real ones."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from smd_analyze.errors import DamagedFile, NothingToAnalyse, UsageError
from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Run


def state(step: int, width: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    base = {"a.weight": torch.randn(width, 6), "a.bias": torch.randn(width), "b.weight": torch.randn(3, width)}
    return {n: t * (1 + 0.01 * step) for n, t in base.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (5, 10, 20):
        torch.save(state(step), tmp_path / f"step_{step}.pt")
    return tmp_path


def codes(run: Run) -> dict[str, str]:
    return {Path(f.where).name: f.code for f in run.findings}


def test_copies_under_a_label_are_aliases(folder: Path) -> None:
    shutil.copy(folder / "step_20.pt", folder / "last.pt")
    torch.save(state(10), folder / "model_best.pt")
    (folder / "latest.pt").symlink_to(folder / "step_20.pt")
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [5, 10, 20]
    assert {k: Path(v).name for k, v in run.aliases.items()} == {
        "last": "step_20.pt", "best": "step_10.pt", "latest": "step_20.pt",
    }  # fmt: skip


def test_a_final_file_of_another_run_is_a_stray(folder: Path) -> None:
    torch.save(state(30, seed=1), folder / "net_final.pt")
    torch.save(state(30, width=9), folder / "final.pt")
    run = load_run(folder)
    assert len(run.checkpoints) == 3
    assert codes(run)["net_final.pt"] == codes(run)["final.pt"] == "stray-file"
    assert any("another run" in f.message for f in run.findings)


def test_a_final_file_with_a_step_of_its_own_joins(tmp_path: Path) -> None:
    for step, name in ((5, "ckpt_1.pt"), (10, "ckpt_2.pt"), (12, "final.pt")):
        torch.save({"model": state(step), "global_step": step}, tmp_path / name)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10, 12]
    assert codes(run) == {"final.pt": "joins-sequence"}


def test_damaged_and_foreign_files_are_findings_and_the_rest_goes_on(folder: Path) -> None:
    data = (folder / "step_10.pt").read_bytes()
    (folder / "step_15.pt").write_bytes(data[: len(data) // 2])
    (folder / "step_16.pt").write_bytes(b"")
    (folder / "pointer_1.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (folder / "notes.txt").write_text("hello")
    (folder / "log.json").write_text("{}")
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [5, 10, 20]
    assert codes(run) == {
        "step_15.pt": "damaged-file",
        "step_16.pt": "not-a-checkpoint",
        "pointer_1.pt": "not-a-checkpoint",
    }


def test_a_pipe_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "step_99.pt")
    assert codes(load_run(folder)) == {"step_99.pt": "not-a-checkpoint"}


def test_a_tensor_that_changes_shape_is_left_out_where_it_deviates(folder: Path) -> None:
    torch.save(state(15, width=9), folder / "step_15.pt")
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [5, 10, 15, 20]
    assert [set(c.parameters) for c in run.checkpoints] == [{"a.weight", "a.bias", "b.weight"}] * 2 + [set()] + [
        {"a.weight", "a.bias", "b.weight"}
    ]
    assert codes(run) == {"a.weight": "shape-changes", "a.bias": "shape-changes", "b.weight": "shape-changes"}


def test_a_parameter_that_is_missing_somewhere_is_a_finding(folder: Path) -> None:
    short = state(15)
    del short["a.bias"]
    torch.save(short, folder / "step_15.pt")
    run = load_run(folder)
    assert set(run.checkpoints[2].parameters) == {"a.weight", "b.weight"}
    assert codes(run) == {"a.bias": "parameter-missing"}


def test_a_second_sequence_is_named_and_can_be_picked(folder: Path) -> None:
    for step in (1, 2):
        torch.save(state(step, width=4), folder / f"critic-{step}.pt")
    run = load_run(folder)
    assert len(run.checkpoints) == 3
    assert any("critic-#.pt" in f.message and "--run" in f.remedy for f in run.findings)
    assert [c.step for c in load_run(folder, run="critic-#.pt").checkpoints] == [1, 2]
    with pytest.raises(UsageError, match="step_#.pt"):
        load_run(folder, run="nobody")


def test_a_closed_folder_is_a_finding(folder: Path) -> None:
    (folder / "private").mkdir(mode=0)
    run = load_run(folder)
    assert len(run.checkpoints) == 3
    assert os.geteuid() == 0 or codes(run) == {"private": "unreadable-folder"}
    (folder / "private").chmod(0o700)


def test_steps_include_and_exclude(folder: Path) -> None:
    assert [c.step for c in load_run(folder, steps="10:20").checkpoints] == [10, 20]
    assert [c.step for c in load_run(folder, steps=":5").checkpoints] == [5]
    assert set(load_run(folder, include=["a.*"], exclude=["*.bias"]).checkpoints[0].parameters) == {"a.weight"}
    for bad in ("30:40", "5", "a:b"):
        with pytest.raises(UsageError):
            load_run(folder, steps=bad)
    with pytest.raises(UsageError, match="no parameter is left"):
        load_run(folder, include=["nothing"])


def test_one_file_is_a_run_of_one(folder: Path) -> None:
    run = load_run(folder / "step_10.pt")
    assert [c.step for c in run.checkpoints] == [10]
    assert run.step_unit == "optimizer steps"


def test_nothing_to_analyse_says_what_was_seen(tmp_path: Path) -> None:
    with pytest.raises(NothingToAnalyse, match="no such file"):
        load_run(tmp_path / "missing")
    with pytest.raises(NothingToAnalyse, match="holds no checkpoints"):
        load_run(tmp_path)
    (tmp_path / "a.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(NothingToAnalyse, match="git lfs pull"):
        load_run(tmp_path)


def test_a_file_that_changes_after_it_was_listed_is_noticed(folder: Path) -> None:
    run = load_run(folder)
    torch.save(state(99), folder / "step_5.pt")
    os.utime(folder / "step_5.pt", ns=(1, 1))
    with pytest.raises(DamagedFile, match=r"step_5\.pt.*changed"):
        run.checkpoints[0].parameters["a.weight"].read()
    assert run.checkpoints[1].parameters["a.weight"].load().shape == (8, 6)


def test_two_runs_under_one_template_are_not_mixed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        torch.save(state(step), tmp_path / f"m{step}.pt")
    torch.save({"other.weight": torch.ones(3, 3)}, tmp_path / "m4.pt")
    assert [c.step for c in load_run(tmp_path).checkpoints] == [1, 2, 3]


def test_averaged_weights_can_be_picked(tmp_path: Path) -> None:
    for step in (1, 2):
        made = {"model": state(step), "ema": {f"module.{n}": t * 2 for n, t in state(step).items()}, "step": step}
        torch.save(made, tmp_path / f"c{step}.pt")
    live, averaged = load_run(tmp_path), load_run(tmp_path, weights="ema")
    for a, b in zip(live.checkpoints, averaged.checkpoints, strict=True):
        np.testing.assert_array_equal(a.parameters["a.weight"].read() * 2, b.parameters["a.weight"].read())
        np.testing.assert_array_equal(a.variants["ema"]["b.weight"].read(), b.parameters["b.weight"].read())
    with pytest.raises(UsageError, match="live, ema"):
        load_run(tmp_path, weights="master")


def test_tied_weights_are_counted_once(tmp_path: Path) -> None:
    shared = torch.ones(5, 4)
    torch.save({"emb.weight": shared, "head.weight": shared, "fc.weight": torch.ones(2, 2)}, tmp_path / "step_1.pt")
    run = load_run(tmp_path)
    assert set(run.checkpoints[0].parameters) == {"emb.weight", "fc.weight"}
    assert [(f.code, f.where) for f in run.findings] == [("tied-parameter", "head.weight")]


def test_shards_that_leave_their_folder_are_refused(tmp_path: Path) -> None:
    here = tmp_path / "checkpoint-1"
    here.mkdir()
    save_file({"w": np.ones((2, 2), np.float32)}, tmp_path / "secret.safetensors")
    save_file({"w": np.ones((2, 2), np.float32)}, here / "model-00001-of-00001.safetensors")
    (here / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../secret.safetensors"}}')
    run = load_run(tmp_path)
    assert [Path(c.path).name for c in run.checkpoints] == ["secret.safetensors"]
    assert codes(run)["checkpoint-1"] == "unsafe-file"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    here = tmp_path / "checkpoint-1"
    here.mkdir()
    save_file({"w": np.ones((2, 2), np.float32)}, here / "model-00001-of-00002.safetensors")
    (here / "model.safetensors.index.json").write_text(
        '{"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}'
    )
    with pytest.raises(NothingToAnalyse, match="model-00002-of-00002.safetensors is missing"):
        load_run(tmp_path)


def test_gpt2_projections_are_known_by_their_shape(tmp_path: Path) -> None:
    made = {
        "h.0.attn.c_attn.weight": torch.ones(4, 12),
        "h.0.attn.c_proj.weight": torch.ones(4, 4),
        "wte.weight": torch.ones(9, 4),
    }
    torch.save(made, tmp_path / "step_1.pt")
    torch.save({n: t.t().contiguous() for n, t in made.items()}, tmp_path / "other.pt")
    transposed = load_run(tmp_path / "step_1.pt").checkpoints[0].parameters
    assert [transposed[n].layout for n in made] == ["IO", "IO", None]
    usual = load_run(tmp_path / "other.pt").checkpoints[0].parameters
    assert [usual[n].layout for n in made] == ["OI", "OI", None]


def test_known_folders_that_are_not_read_are_called_by_their_name(folder: Path) -> None:
    (folder / "step-5").mkdir()
    (folder / "step-5" / ".metadata").write_bytes(b"\x80\x02.")
    (folder / "step-5" / "__0_0.distcp").write_bytes(b"x")
    run = load_run(folder)
    assert any("torch.distributed" in f.message for f in run.findings)
    assert len(run.checkpoints) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_no_descriptor_stays_open(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    run = load_run(folder)
    run.checkpoints[0].parameters["a.weight"].read()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_listing_imports_no_torch(folder: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from smd_analyze.loading.discovery import load_run; load_run(sys.argv[1]); "
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_an_optimizer_may_train_a_second_model(tmp_path: Path) -> None:
    net, value = torch.nn.Linear(6, 8), torch.nn.Linear(8, 1)
    optimizer = torch.optim.AdamW([*net.parameters(), *value.parameters()])
    value(net(torch.ones(1, 6))).sum().backward()
    optimizer.step()
    made = {"net": net.state_dict(), "value_net": value.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(made, tmp_path / "step_1.pt")
    run = load_run(tmp_path)
    assert run.parameter_groups == {"0": ("weight", "bias")}
    assert run.checkpoints[0].optimizer_state["weight"]["exp_avg"].shape == (8, 6)


def test_what_the_optimizer_does_not_hold_is_not_trained(tmp_path: Path) -> None:
    net = torch.nn.Linear(6, 8)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    made = {"model": {"pe": torch.ones(1, 7, 6), **net.state_dict()}, "optimizer": optimizer.state_dict()}
    torch.save(made, tmp_path / "step_1.pt")
    run = load_run(tmp_path)
    assert set(run.checkpoints[0].parameters) == {"weight", "bias"}
    assert set(run.checkpoints[0].buffers) == {"pe"}
    assert [f.code for f in run.findings] == ["not-trained"]


def test_the_folder_of_one_checkpoint_is_a_run_of_one(tmp_path: Path) -> None:
    here = tmp_path / "checkpoint-7"
    here.mkdir()
    save_file({"w.weight": np.ones((2, 2), np.float32)}, here / "model.safetensors")
    run = load_run(here)
    assert [c.step for c in run.checkpoints] == [7]


def test_a_file_without_the_wanted_copy_is_left_out(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save({"model": state(step), "ema": state(step), "step": step}, tmp_path / f"c{step}.pt")
    torch.save(state(3), tmp_path / "pretrained.pt")
    run = load_run(tmp_path, weights="ema")
    assert [c.step for c in run.checkpoints] == [1, 2]
    assert codes(run) == {"pretrained.pt": "unreadable-file"}


def test_labels_join_at_an_epoch_of_their_own(tmp_path: Path) -> None:
    for epoch, name in ((5, "epoch_5.pt"), (10, "epoch_10.pt"), (12, "best_epoch_12_acc_0.71.pt"), (14, "final.pt")):
        torch.save({"model": state(epoch), "epoch": epoch}, tmp_path / name)
    shutil.copy(tmp_path / "epoch_10.pt", tmp_path / "best_epoch_10_acc_0.69.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10, 12, 14]
    assert run.step_unit == "epochs"
    assert {k: Path(v).name for k, v in run.aliases.items()} == {"best": "epoch_10.pt"}


def test_a_run_of_which_only_the_best_were_kept(tmp_path: Path) -> None:
    for epoch, accuracy in ((5, 0.71), (12, 0.74), (100, 0.8)):
        torch.save(state(epoch), tmp_path / f"best_epoch_{epoch}_acc_{accuracy}.pt")
    torch.save(state(0), tmp_path / "init.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 12, 100]


def test_lightnings_second_versions(tmp_path: Path) -> None:
    for step in (8, 16):
        torch.save({"state_dict": state(step), "global_step": step}, tmp_path / f"epoch={step // 8}-step={step}.ckpt")
    shutil.copy(tmp_path / "epoch=2-step=16.ckpt", tmp_path / "epoch=2-step=16-v1.ckpt")
    torch.save({"state_dict": state(24), "global_step": 24}, tmp_path / "epoch=3-step=24-v1.ckpt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [8, 16, 24]
    assert {Path(v).name for v in run.aliases.values()} == {"epoch=2-step=16.ckpt"}


def test_lightnings_second_run_in_one_folder_is_a_sequence_of_its_own(tmp_path: Path) -> None:
    for version in ("", "-v1"):
        for step in (8, 16, 24):
            made = {"state_dict": state(step, seed=len(version)), "global_step": step}
            torch.save(made, tmp_path / f"epoch=0-step={step}{version}.ckpt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [8, 16, 24]
    assert len({c.path.endswith("-v1.ckpt") for c in run.checkpoints}) == 1
    assert set(run.runs) == {"epoch=0-step=#.ckpt", "epoch=#-step=#-v#.ckpt"}


def test_runs_of_a_tree_can_be_named_in_many_ways(tmp_path: Path) -> None:
    for name, seed in (("lr0.1_wd5e-4", 0), ("lr0.01_wd5e-4", 1)):
        (tmp_path / name).mkdir()
        for step in (10, 20):
            torch.save(state(step, seed=seed), tmp_path / name / f"ckpt_{step}.pt")
    run = load_run(tmp_path)
    assert run.runs == {"lr0.01_wd5e-4/ckpt_#.pt": 2, "lr0.1_wd5e-4/ckpt_#.pt": 2}
    for name in ("lr0.1_wd5e-4/ckpt_#.pt", "lr0.1_wd5e-4", "lr0.1_wd5e-4/", "lr0.1_", "lr0.1_wd5e-4/ckpt_10.pt"):
        picked = load_run(tmp_path, run=name)
        assert all("lr0.1_" in c.path for c in picked.checkpoints)
        assert next(iter(picked.runs)) == "lr0.1_wd5e-4/ckpt_#.pt"
    with pytest.raises(UsageError, match="several sequences match 'lr'; there are"):
        load_run(tmp_path, run="lr")


def test_generator_and_discriminator_are_two_sequences(tmp_path: Path) -> None:
    for step in (900, 1000, 10000):
        torch.save(state(step), tmp_path / f"G_{step}.pth")
        torch.save({"d.weight": torch.randn(30, 5)}, tmp_path / f"D_{step}.pth")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [900, 1000, 10000]
    assert [c.step for c in load_run(tmp_path, run="D_").checkpoints] == [900, 1000, 10000]
    assert set(run.runs) == {"G_#.pth", "D_#.pth"}


def test_a_resumed_run_goes_on_in_another_folder(tmp_path: Path) -> None:
    for version, steps in ((0, (10, 20, 30)), (1, (40, 50))):
        (tmp_path / f"version_{version}").mkdir()
        for step in steps:
            made = {"state_dict": state(step), "global_step": step}
            torch.save(made, tmp_path / f"version_{version}" / f"epoch=0-step={step}.ckpt")
    assert [c.step for c in load_run(tmp_path).checkpoints] == [10, 20, 30, 40, 50]


def test_the_runs_of_a_tree_are_listed_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from smd_analyze.cli import main

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for step in (10, 20):
            torch.save(state(step), tmp_path / name / f"ckpt_{step}.pt")
    for words in ([], ["--run", "second"], ["--order", "time"], ["--step-pattern", r"_(\d+)"]):
        with pytest.raises(SystemExit) as ended:
            main(["ls", str(tmp_path), *words])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert "2 sequences lie in this folder" in shown
        assert "first/ckpt_#.pt" in shown
        assert "second/ckpt_#.pt" in shown
    with pytest.raises(SystemExit) as ended:
        main(["groups", str(tmp_path), "--order", "inside"])
    assert ended.value.code == 2
    assert "Possible here: name, time" in capsys.readouterr().err
