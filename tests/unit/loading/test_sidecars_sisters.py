"""Files beside several runs are not this run's; a settings file cannot eat the machine."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.sidecars import toml_settings


def decays(parent: Path, name: str, *sisters: str) -> list[float | None]:
    """Weight decays that are found for the run in parent/name, where parent/train_config.json says 0.3."""
    for folder in (name, *sisters):
        (parent / folder).mkdir()
        for step in (1, 2):
            save_file({"fc.weight": np.full((2, 2), step, "f4")}, parent / folder / f"step_{step}.safetensors")
    (parent / "train_config.json").write_text(json.dumps({"weight_decay": 0.3}))
    return [s.value for s in load_run(parent / name).checkpoints[0].settings if s.name == "weight_decay"]


def test_a_file_above_several_runs_belongs_to_none(tmp_path: Path) -> None:
    assert decays(tmp_path, "small_ckpt", "large_ckpt") == []


def test_a_file_above_the_only_store_belongs_to_it(tmp_path: Path) -> None:
    assert decays(tmp_path, "small_ckpt", "plots") == [0.3]


@pytest.mark.parametrize("sister", ["models", "data", "src", "run2"])
def test_a_file_in_a_projects_folder_belongs_to_no_run(tmp_path: Path, sister: str) -> None:
    assert decays(tmp_path, "checkpoints", sister) == []


def save(folder: Path) -> None:
    """Two checkpoints without settings, of directions that no other folder has."""
    folder.mkdir(parents=True)
    weights = np.random.default_rng(len(str(folder))).standard_normal((16, 16)).astype("f4")
    for step in (1, 2):
        save_file({"fc.weight": weights + 0.01 * step}, folder / f"step_{step}.safetensors")


def rates(root: Path, run: str | None = None) -> list[tuple[float | None, str]]:
    """Configured learning rates and where they stand."""
    return [(s.value, s.source) for s in load_run(root, run=run).checkpoints[0].settings if s.name == "learning_rate"]


def write(path: Path, rate: float) -> None:
    """A file of settings, as JSON or YAML (which JSON is)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"lr": rate}))


def test_sister_folders_and_what_lies_below_them_say_nothing(tmp_path: Path) -> None:
    save(tmp_path / "lr0.01" / "weights")
    for place in ("lr0.1", "other", "runs/other", "lr0.1/weights", "lr0.01/data", "lr0.01/node_modules"):
        write(tmp_path / place / "config.json", 7)
    save(tmp_path / "other" / "weights")
    assert rates(tmp_path, "lr0.01") == []
    assert rates(tmp_path / "lr0.01") == []
    write(tmp_path / "runs" / "lr0.01" / "hparams.yaml", 0.01)
    assert rates(tmp_path, "lr0.01") == [(0.01, "runs/lr0.01/hparams.yaml, lr")]


def test_the_settings_of_a_run_in_the_folder_above_are_not_those_of_an_older_one_below(tmp_path: Path) -> None:
    save(tmp_path / "main")
    save(tmp_path / "main" / "old")
    write(tmp_path / "main" / "args.json", 0.1)
    assert rates(tmp_path / "main", "old/step_#.safetensors") == []
    assert rates(tmp_path / "main", "step_#.safetensors") == [(0.1, "args.json, lr")]


def test_of_a_loggers_runs_that_disagree_none_is_used(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints")
    write(tmp_path / "wandb" / "run-20240501_1-a" / "files" / "config.yaml", 0.1)
    assert [rate for rate, _ in rates(tmp_path)] == [0.1]
    write(tmp_path / "wandb" / "run-20240502_1-b" / "files" / "config.yaml", 0.3)
    assert rates(tmp_path) == []
    (finding,) = [f for f in load_run(tmp_path).findings if f.code == "sidecars-disagree"]
    assert "learning_rate" in finding.message
    assert "--lr" in finding.remedy


def test_a_template_above_several_runs_is_passed_over_in_silence(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "ckpt")
    write(tmp_path / "a" / "config.yaml", 0.1)
    write(tmp_path / "config.yaml", 77)
    assert rates(tmp_path, "a") == [(0.1, "a/config.yaml, lr")]
    assert not [f for f in load_run(tmp_path, run="a").findings if f.code == "sidecars-disagree"]


@pytest.mark.parametrize("dot", [".", " . "])
def test_a_key_of_too_many_levels_is_refused(tmp_path: Path, dot: str) -> None:
    (tmp_path / "config.toml").write_text(f"{dot.join(['a'] * 20_000)} = 1")
    with pytest.raises(DamagedFile, match="levels"):
        toml_settings.read(str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("rates = [" + ", ".join(["0.1"] * 5000) + "]\nq.b.'c.d'.e = 1")
    assert toml_settings.read(str(tmp_path / "config.toml"))
