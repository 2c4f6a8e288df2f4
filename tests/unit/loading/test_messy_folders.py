"""Folders as people have them: each ends in the right reading, or in one finding that says what to do."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from smd_analyze.errors import NothingToAnalyse, UsageError
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.kinds import describe
from smd_analyze.loading.units.unfinished import is_temporary


def model(step: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"fc.weight": torch.randn(6, 5) + 0.01 * step, "fc.bias": torch.ones(6) * step}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (1, 2, 3):
        torch.save({"model": model(step), "step": step}, tmp_path / f"step_{step}.pt")
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_name_that_is_no_text_is_left_out_and_said(folder: Path) -> None:
    (folder / "step_3.pt").rename(os.fsdecode(os.fsencode(folder) + b"/step_\xff.pt"))
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2]
    assert [(f.code, f.where.rpartition("/")[2]) for f in run.findings] == [("unreadable-name", "step_\\udcff.pt")]
    with pytest.raises(UsageError, match="not valid UTF-8"):
        load_run(os.fsdecode(os.fsencode(folder) + b"/\xff"))


def test_names_of_tensors_can_be_printed(tmp_path: Path) -> None:
    torch.save({"a\n\x1b[31m.weight": torch.ones(2, 2), "\udc80": torch.ones(2, 2)}, tmp_path / "a.pt")
    names = list(load_run(tmp_path).checkpoints[0].parameters)
    assert names == ["a\\n\\x1b[31m.weight", "\\xed\\xb2\\x80"]


def test_a_repeated_step_is_said(folder: Path) -> None:
    torch.save({"model": model(3), "step": 2}, folder / "step_3.pt")
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    assert run.ordered_by == "step in the file name"
    assert [f.code for f in run.findings] == ["step-repeats"]


def test_an_index_without_its_shards_is_a_damaged_checkpoint_and_one_that_leaves_its_folder_is_refused(
    tmp_path: Path,
) -> None:
    for step, shard in ((1, None), (2, "gone.safetensors"), (3, "../checkpoint-1/model.safetensors")):
        inside = tmp_path / f"checkpoint-{step}"
        inside.mkdir()
        if shard is None:
            save_file(model(1), inside / "model.safetensors")
        else:
            (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"fc.weight": shard}}))
    run = load_run(tmp_path)
    assert len(run.checkpoints) == 1
    assert [f.code for f in run.findings] == ["damaged-file", "unsafe-file"]


def test_optimizers_in_files_of_their_own_are_said(folder: Path) -> None:
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer_9.pt")  # no weights are called so
    found = load_run(folder).findings
    assert [(f.code, f.severity) for f in found] == [("optimizer-not-read", "note")]


def test_many_tensors_that_lack_in_one_file_are_one_finding(folder: Path) -> None:
    torch.save({"model": {"fc.weight": model(1)["fc.weight"].int(), "x.weight": torch.ones(2, 2)}, "step": 4}, folder / "step_4.pt")  # noqa: E501  # fmt: skip
    torch.save({"model": {**model(5), **{f"l{i}.weight": torch.ones(2, 2) for i in range(9)}}, "step": 5}, folder / "step_5.pt")  # noqa: E501  # fmt: skip
    found = [f for f in load_run(folder).findings if f.code == "parameter-missing"]
    assert len(found) <= 3


def test_the_dotless_average_of_latent_diffusion_is_one(tmp_path: Path) -> None:
    live = {f"model.{n}": t for n, t in model(1).items()}
    average = {"model_ema." + n.replace(".", ""): t + 1 for n, t in model(1).items()}
    torch.save({"state_dict": {**live, **average, "model_ema.decay": torch.tensor(0.9)}}, tmp_path / "step_1.pt")
    assert set(load_run(tmp_path).checkpoints[0].parameters) == {"model.fc.weight", "model.fc.bias"}
    found = load_run(tmp_path, weights="ema").checkpoints[0].parameters["model.fc.weight"].load()
    assert torch.equal(found, model(1)["fc.weight"] + 1)


def test_an_average_that_is_a_list_is_matched_by_order_and_shape(tmp_path: Path) -> None:
    shadow = [t + 1 for t in model(1).values()]
    torch.save({"model": model(1), "ema": {"decay": 0.9, "shadow_params": shadow}}, tmp_path / "step_1.pt")
    found = load_run(tmp_path, weights="ema").checkpoints[0].parameters
    assert torch.equal(found["fc.bias"].load(), model(1)["fc.bias"] + 1)
    torch.save({"model": model(1), "ema": {"shadow_params": shadow[::-1]}}, tmp_path / "step_1.pt")
    with pytest.raises(UsageError, match="no 'ema' weights"):
        load_run(tmp_path, weights="ema")


def test_a_label_that_cannot_be_read_leaves_the_run_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"model": model(3), "step": 3}, folder / "last.pt")
    from smd_analyze.loading.sequences import aliases

    honest = aliases.read

    def gone(one: aliases.Alike, name: str) -> object:
        if one.name == "last.pt":
            raise FileNotFoundError(one.path)
        return honest(one, name)

    monkeypatch.setattr(aliases, "read", gone)
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    assert [f.code for f in run.findings] == ["unreadable-file"]


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("inference.pdiparams", b"\x00\x00\x00\x00\x01", "Paddle"),
    ],
)
def test_formats_that_are_not_read_are_called_by_name(tmp_path: Path, name: str, head: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(head + bytes(64))
    with open_source(str(tmp_path / name)) as source:
        assert words in describe(source)
    with pytest.raises(NothingToAnalyse, match="not read yet"):
        load_run(tmp_path)


def test_unfinished_saves_are_left_out_and_said(folder: Path) -> None:
    whole = (folder / "step_3.pt").read_bytes()
    for name in ("step_4.pt.tmp", "step_5.pt.part", "step_6.pt.incomplete", "step_7.pt.tmp_1a2b3c", "step_8.pt~"):
        (folder / name).write_bytes(whole)
    (folder / "log.json.tmp").write_text("{}")
    (folder / "step_9.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("tmp-checkpoint-10", "checkpoint_11.orbax-checkpoint-tmp-1", "checkpoint_12.tmp-1700000000"):
        (folder / name).mkdir()
        torch.save(model(3), folder / name / "model.pt")
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    assert sorted({f.code for f in run.findings}) == ["damaged-file", "unfinished-save"]
    assert sum(f.code == "unfinished-save" for f in run.findings) == 8


def test_names_that_only_look_temporary_are_read(tmp_path: Path) -> None:
    for name in ("model.template_1.pt", "model.template_2.pt", "model.template_3.pt"):
        torch.save(model(1), tmp_path / name)
    assert len(load_run(tmp_path).checkpoints) == 3


def test_levanter_says_which_saves_are_temporary(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps({"step": 3, "is_temporary": True}))
    assert is_temporary(str(tmp_path), ["metadata.json"])
    assert not is_temporary(str(tmp_path), [])
    for text in ('{"step": 3, "is_temporary": false}', '{"step": 3}', "[1]", "{", "\\xff"):
        (tmp_path / "metadata.json").write_text(text)
        assert not is_temporary(str(tmp_path), ["metadata.json"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("latest", "step_9\n", "names step_9, which is not among"),
        ("checkpoint", 'model_checkpoint_path: "/old/place/step_2"\n', "names step_2, but step_3.pt is later"),
        ("latest_checkpointed_iteration.txt", "2", "names 2, but step_3.pt is later"),
        ("last_checkpoint", "/elsewhere/step_3.pt", None),
        ("latest_checkpointed_iteration.txt", "release", None),
        ("latest_checkpointed_iteration.txt", "3", None),
        ("last_checkpoint", "model_final.pth", None),
        ("latest", "\x00\x01 no text", "no text"),
    ],
)
def test_trackers_are_hints_that_are_compared(folder: Path, name: str, text: str, words: str | None) -> None:
    (folder / name).write_text(text)
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    found = [f.message for f in run.findings if f.code == "tracker-disagrees"]
    assert len(found) == (words is not None)
    assert all(words in f for f in found if words)


def test_data_beside_the_checkpoints_is_no_sequence_of_weights(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        np.savez(folder / f"batch_{i}.npz", x=rng.normal(size=(100, 16)), y=np.arange(100))
        np.savez(folder / f"features_{i}.npz", rng.normal(size=(100, 16)))
        torch.save(torch.randn(100, 5), folder / f"acts{i}.pt")
    np.savez(folder / "train_data.npz", x_train=rng.normal(size=(90, 16)), y_train=rng.normal(size=90))
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    assert sum(f.code == "data-files" for f in run.findings) == 3
    assert len(load_run(folder, run="batch_#.npz").checkpoints) == 6


def test_arrays_alone_are_read_whatever_they_are_called(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        np.savez(tmp_path / f"params_{i}.npz", w1=np.ones((4, 4)) * i, w2=np.ones((100, 4)))
    assert [c.step for c in load_run(tmp_path).checkpoints] == [1, 2, 10]


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_links_in_circles_end_and_links_elsewhere_are_said(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    torch.save(model(9), other / "step_9.pt")
    (folder / "again").symlink_to(folder)
    (folder / "far").symlink_to(other)
    (folder / "gone.pt").symlink_to(folder / "nowhere.pt")
    (folder / "last.ckpt").symlink_to("step_3.pt")
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    assert Path(run.aliases["last"]).name == "step_3.pt"
    assert [(f.code, Path(f.where).name) for f in run.findings] == [
        ("link-not-followed", "far"),
        ("alias", "last.ckpt"),
    ]


def test_folders_of_tools_are_not_looked_into_and_odd_names_are(tmp_path: Path) -> None:
    for name in (
        ".git/objects/a_1.pt",
        ".ipynb_checkpoints/step_1.pt",
        "__pycache__/step_2.pt",
        "deep/" * 40 + "x_1.pt",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        torch.save(model(1), tmp_path / name)
    (tmp_path / "my run").mkdir()
    for step in (2, 9, 10):
        torch.save(model(step), tmp_path / "my run" / f"шаг ({step}) – копия.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [2, 9, 10]
    assert run.runs == {"my run/шаг (#) – копия.pt": 3}


def test_a_pattern_wins_over_the_step_inside_and_leaves_the_rest_out(folder: Path) -> None:
    torch.save({"model": model(9), "step": 9}, folder / "other.pt")
    run = load_run(folder, step_pattern=r"_(?P<epoch>\d)\.")
    assert ([c.step for c in run.checkpoints], run.step_unit) == ([1, 2, 3], "epochs")
    assert [f.code for f in run.findings] == ["pattern-leaves-out"]
    assert [c.step for c in load_run(folder, step_pattern=r"_(?P<epoch>\d)\.", steps_per_epoch=10).checkpoints] == [
        10,
        20,
        30,
    ]
    with pytest.raises(UsageError, match=r"--step-pattern 'iter_\(\\d\+\)' matches none of other.pt"):
        load_run(folder, step_pattern=r"iter_(\d+)")


def test_a_pattern_joins_names_that_are_not_alike(tmp_path: Path) -> None:
    for step, name in ((10, "warmup-10.pt"), (20, "main a 20.pt"), (30, "main a 30.pt")):
        torch.save(model(step), tmp_path / name)
    assert [c.step for c in load_run(tmp_path).checkpoints] == [20, 30]
    assert [c.step for c in load_run(tmp_path, step_pattern=r"(\d+)\.pt").checkpoints] == [10, 20, 30]


def test_a_pattern_does_not_mix_runs(tmp_path: Path) -> None:
    for run in (1, 2):
        (tmp_path / f"run{run}").mkdir()
        for step in (10, 20):
            torch.save(model(step), tmp_path / f"run{run}" / f"x{step}y.pt")
    found = load_run(tmp_path, step_pattern=r"x(\d+)y")
    assert ([c.step for c in found.checkpoints], len(found.runs)) == ([10, 20], 2)


def test_the_order_of_the_caller_reaches_the_run(folder: Path) -> None:
    for i, step in enumerate((3, 1, 2)):
        os.utime(folder / f"step_{step}.pt", (1000 + i, 1000 + i))
    run = load_run(folder, order="time")
    assert [Path(c.path).name for c in run.checkpoints] == ["step_3.pt", "step_1.pt", "step_2.pt"]
    assert (run.step_unit, run.ordered_by) == ("saves", "modification time (--order time)")
    with pytest.raises(UsageError, match="Possible here: inside, name, time"):
        load_run(folder, order="scheduler")


def test_a_pattern_that_finds_one_number_twice_is_one_clear_error(tmp_path: Path) -> None:
    for step in (10, 11, 20):
        torch.save(model(step), tmp_path / f"x{step}.pt")
    with pytest.raises(UsageError, match=r"--step-pattern finds is 1 in x10.pt and in x11.pt"):
        load_run(tmp_path, step_pattern=r"(\d)")
