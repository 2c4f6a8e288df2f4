"""Folders as people have them: each ends in the right reading, or in one finding that says what to do."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from smd_analyze.errors import NothingToAnalyse, UsageError
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats.kinds import describe
from smd_analyze.loading.sources import open_source


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
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer_1.pt")
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
    from smd_analyze.loading import aliases

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
