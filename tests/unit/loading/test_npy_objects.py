"""Dicts of arrays that np.save or np.savez pickled: read as data, in sequence, and nothing runs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smd_analyze.errors import SmdError, UnsafeFile
from smd_analyze.loading.discovery import load_run


def weights(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"fc.weight": rng.normal(size=(30, 40)).astype("f4"), "fc.bias": np.asfortranarray(rng.normal(size=(2, 3)))}


def check(folder: Path, prefix: str = "") -> None:
    run = load_run(folder)
    assert [c.step for c in run.checkpoints] == [5, 10]
    for c in run.checkpoints:
        for name, array in weights(c.step).items():
            np.testing.assert_array_equal(c.parameters[prefix + name].read(), array)
        assert c.parameters[prefix + "fc.weight"].extent is not None


def test_a_dict_in_an_npy_file(tmp_path: Path) -> None:
    for step in (10, 5):
        np.save(tmp_path / f"weights_{step}.npy", weights(step), allow_pickle=True)
    check(tmp_path)
    assert load_run(tmp_path).checkpoints[0].format == "npy objects"


def test_a_trainers_dict_with_a_step_inside(tmp_path: Path) -> None:
    for step in (10, 5):
        made = {"params": {"fc": {"weight": weights(step)["fc.weight"]}}, "step": step * 3}
        np.save(tmp_path / f"ckpt{step}.npy", made, allow_pickle=True)  # pyright: ignore[reportArgumentType]
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [15, 30]
    assert run.checkpoints[0].parameters["fc.weight"].shape == (30, 40)


def test_a_dict_as_a_member_of_an_npz_archive(tmp_path: Path) -> None:
    for step in (10, 5):
        held: Any = weights(step)
        np.savez(tmp_path / f"step_{step}.npz", params=held, loss=np.float32(1))
    check(tmp_path)


class Boom:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_payload_beside_the_arrays_is_not_run(tmp_path: Path) -> None:
    made: Any = {**weights(5), "extra": Boom(tmp_path / "ran")}
    np.save(tmp_path / "step_5.npy", made, allow_pickle=True)
    assert set(load_run(tmp_path / "step_5.npy").checkpoints[0].parameters) == set(weights(5))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("made", [[1, 2], np.array(["a"], object), np.array([weights(1), weights(2)], object)])
def test_other_objects_are_refused_in_words(tmp_path: Path, made: Any) -> None:
    np.save(tmp_path / "step_5.npy", np.array(made, object), allow_pickle=True)
    with pytest.raises(UnsafeFile, match="no dict of arrays"):
        load_run(tmp_path / "step_5.npy")


@pytest.mark.parametrize("cut", [11, 60, 130, 2000])
def test_a_file_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    held: Any = weights(5)
    np.save(tmp_path / "step_5.npy", held, allow_pickle=True)
    whole = (tmp_path / "step_5.npy").read_bytes()
    (tmp_path / "step_5.npy").write_bytes(whole[:cut])
    with pytest.raises(SmdError, match=r"step_5\.npy"):
        load_run(tmp_path / "step_5.npy")


def test_a_folder_of_single_arrays_is_still_one_checkpoint(tmp_path: Path) -> None:
    for step in (10, 5):
        (tmp_path / f"step_{step}").mkdir()
        for name, array in weights(step).items():
            np.save(tmp_path / f"step_{step}" / f"{name}.npy", array)
    check(tmp_path)
