"""safetensors files of ranks with parts of tensors, as torch's HuggingFaceStorageWriter leaves them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats.safetensors_shards import claims, open_folder

WHOLE = np.arange(70, dtype=np.float32).reshape(10, 7)


def write(path: Path, parts: Mapping[str, tuple[np.ndarray, list[int]]], info: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {n: {"saved_offsets": begin} for n, (_, begin) in parts.items()}
    header: dict[str, Any] = {"__metadata__": {"DCP_SHARDING_INFO": json.dumps(table) if info is None else info}}
    raw = b""
    for name, (array, _) in parts.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(raw), len(raw) + array.nbytes]}
        raw += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw)


def save(folder: Path, step: int) -> None:
    whole = WHOLE * step
    for rank, (rows, columns) in enumerate([((0, 6), (0, 4)), ((0, 6), (4, 7)), ((6, 10), (0, 4)), ((6, 10), (4, 7))]):
        part = np.ascontiguousarray(whole[slice(*rows), slice(*columns)])
        parts = {"a.weight": (part, [rows[0], columns[0]])}
        if rank == 1:
            parts["scale"] = (np.float32(step).reshape(()), [])
        write(folder / f"shard-{rank + 1:05d}-model-00001-of-00002.safetensors", parts)
    write(folder / "shard-00001-model-00002-of-00002.safetensors", {"b.weight": (whole[:3], [0, 0])})


def names(folder: Path) -> tuple[str, ...]:
    return claims(str(folder), [p.name for p in folder.iterdir()], [])


def test_parts_are_put_together(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path / f"step-{step}", step)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    for checkpoint in run.checkpoints:
        np.testing.assert_array_equal(checkpoint.parameters["a.weight"].read(), WHOLE * checkpoint.step)
        np.testing.assert_array_equal(checkpoint.parameters["b.weight"].read(), WHOLE[:3] * checkpoint.step)
        assert checkpoint.parameters["a.weight"].layout == "OI"
        assert checkpoint.parameters["scale"].read() == checkpoint.step


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "shard-00002-model-00001-of-00002.safetensors").unlink()
    with pytest.raises(DamagedFile, match="shard-00002"):
        open_folder(str(tmp_path), names(tmp_path), None)


@pytest.mark.parametrize("info", ["{", "[]", '{"a": {"saved_offsets": [0]}}', '{"a": {"saved_offsets": [-1, 0]}}'])
def test_metadata_that_does_not_tell(tmp_path: Path, info: str) -> None:
    write(tmp_path / "shard-00001-model-00001-of-00001.safetensors", {"a": (WHOLE, [0, 0])}, info)
    with pytest.raises(DamagedFile, match="DCP_SHARDING_INFO"):
        open_folder(str(tmp_path), names(tmp_path), None)


def test_a_part_far_away_takes_no_memory(tmp_path: Path) -> None:
    write(tmp_path / "shard-00001-model-00001-of-00001.safetensors", {"a": (WHOLE, [1 << 40, 0])})
    with pytest.raises(DamagedFile, match="missing"):
        open_folder(str(tmp_path), names(tmp_path), None)
