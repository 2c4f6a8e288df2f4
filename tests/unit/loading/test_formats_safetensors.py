"""safetensors: the header is believed only where the file bears it out."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import open_document


def opened(path: Path, previous: Document | None = None) -> Document:
    with open_source(str(path)) as source:
        return open_document(source, {previous.format: previous} if previous else None)


def write(path: Path, header: dict[str, object] | str, data: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": np.arange(12, dtype=np.float32)}, path)
    data = path.read_bytes()
    for length in range(9, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFile, match="a.safetensors"):
            opened(path)


ENTRY = '{"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}'


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}},  # shape and bytes disagree
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}},
        {"w": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 60]}},
        {"w": {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32"}},
        {"w": 3},
        f'{{"w": {ENTRY}, "w": {ENTRY}}}',
        '{"w": ',
        "{" + '"a":{' * 5000,
    ],
)
def test_headers_that_lie(tmp_path: Path, header: dict[str, object] | str) -> None:
    write(tmp_path / "a.safetensors", header, b"\0" * 16)
    with pytest.raises(DamagedFile, match="a.safetensors"):
        opened(tmp_path / "a.safetensors")


def test_files_of_one_layout_share_one_tree(tmp_path: Path) -> None:
    for step in (1, 2):
        save_file({"w": np.full((3, 3), step, np.float32)}, tmp_path / f"{step}.safetensors")
    first = opened(tmp_path / "1.safetensors")
    assert opened(tmp_path / "2.safetensors", first).tree is first.tree


def test_a_step_in_the_metadata_orders_the_run(tmp_path: Path) -> None:
    for name, step in (("b", 9), ("a", 10)):
        save_file(
            {"w": np.ones((2, 2), np.float32)},
            tmp_path / f"x{step}{name}.safetensors",
            {"step": str(step), "lr": "0.5"},
        )
    for step in (9, 10):
        (tmp_path / f"x{step}{'b' if step == 9 else 'a'}.safetensors").rename(
            tmp_path / f"model_{19 - step}.safetensors"
        )
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [9, 10]
    assert [Path(c.path).name for c in run.checkpoints] == ["model_10.safetensors", "model_9.safetensors"]
    assert "step" in run.ordered_by
    rates = [s for s in run.checkpoints[0].settings if s.name == "learning_rate"]
    assert [(s.value, s.kind) for s in rates] == [(0.5, "in force")]


def test_length_bytes_that_look_like_a_pickle(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    text = json.dumps({"w": entry})
    write(tmp_path / "a.safetensors", text + " " * (0x0280 - len(text)), b"\0" * 16)
    assert (tmp_path / "a.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert opened(tmp_path / "a.safetensors").format == "safetensors"
