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


def test_a_folder_that_is_simply_called_checkpoints_may_have_sisters(tmp_path: Path) -> None:
    assert decays(tmp_path, "checkpoints", "models") == [0.3]


@pytest.mark.parametrize("dot", [".", " . "])
def test_a_key_of_too_many_levels_is_refused(tmp_path: Path, dot: str) -> None:
    (tmp_path / "config.toml").write_text(f"{dot.join(['a'] * 20_000)} = 1")
    with pytest.raises(DamagedFile, match="levels"):
        toml_settings.read(str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("rates = [" + ", ".join(["0.1"] * 5000) + "]\nq.b.'c.d'.e = 1")
    assert toml_settings.read(str(tmp_path / "config.toml"))
