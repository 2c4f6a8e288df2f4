"""Orbax folders: items, steps, unfinished saves, what must be refused; needs tensorstore, not JAX."""

import json
import os
import shutil

import numpy as np
import pytest
from tensorstore_writers import finish, flat, orbax_item, packed, write

from smd_analyze.errors import DamagedFile, MissingLibrary, NothingToAnalyse
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats import registry

ml_dtypes = pytest.importorskip("ml_dtypes")


def params(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype("f4")},
        "fc": {"kernel": rng.normal(size=(4, 5)).astype(ml_dtypes.bfloat16), "bias": np.zeros(5, "f4")},
    }


def state(step: int) -> dict:
    hyper = {"learning_rate": np.array(0.1 / step, "f4"), "weight_decay": np.array(0.1, "f4")}
    inner = {"0": {"count": np.array(step, "i4"), "mu": params(step), "nu": params(step)}, "1": None}
    return {
        "params": params(step),
        "batch_stats": {"bn": {"mean": np.ones(4, "f4"), "var": np.ones(4, "f4")}},
        "opt_state": {"count": np.array(step, "i4"), "hyperparams": hyper, "inner_state": inner},
        "empty": {},
    }


def save(root, step: int, ocdbt: bool = True, zarr3: bool = False, tree=None) -> None:
    orbax_item(root / str(step) / "default", state(step) if tree is None else tree, ocdbt, zarr3)
    finish(root / str(step))


@pytest.mark.parametrize(("ocdbt", "zarr3"), [(True, False), (True, True), (False, False), (False, True)])
def test_items_of_the_manager(tmp_path, ocdbt, zarr3):
    for step in (5, 10):
        save(tmp_path, step, ocdbt, zarr3)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    assert (run.step_unit, run.ordered_by) == ("optimizer steps", "optax' count in the file")
    last = run.checkpoints[-1]
    assert (last.format, last.framework) == ("orbax", "flax")
    assert {n: t.layout for n, t in last.parameters.items()} == {
        "conv.kernel": "HWIO", "fc.kernel": "IO", "fc.bias": "O"
    }  # fmt: skip
    kernel = last.parameters["fc.kernel"]
    assert kernel.dtype == "bfloat16"
    np.testing.assert_array_equal(kernel.read(), params(10)["fc"]["kernel"].view("u2"))
    assert kernel.load().shape == (4, 5)
    np.testing.assert_array_equal(last.parameters["conv.kernel"].read(), params(10)["conv"]["kernel"])
    assert set(last.optimizer_state["conv.kernel"]) == {"exp_avg", "exp_avg_sq", "step"}
    assert {s.name: s.value for s in last.settings if s.text is None} == {"learning_rate": 0.01, "weight_decay": 0.1}
    assert last.nbytes > 500
    assert run.findings == ()


def test_the_number_of_a_folder_is_the_step(tmp_path):
    for step in (900, 1000):
        save(tmp_path, step, tree={"params": params(step)})
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [900, 1000]
    assert (run.step_unit, run.ordered_by) == ("optimizer steps", "step in the file name")


def test_folders_without_the_steps_own_file_and_an_item_by_itself(tmp_path):
    for step in (1, 2):
        orbax_item(tmp_path / "old" / f"{step}" / "items", {"params": params(step)})
        orbax_item(tmp_path / "bare" / f"step_{step}", {"params": params(step)})
    for name in ("old", "bare"):
        assert [c.step for c in load_run(tmp_path / name).checkpoints] == [1, 2]


def test_several_items(tmp_path):
    for step in (1, 2):
        folder = tmp_path / f"ckpt_{step:08d}"
        orbax_item(folder / "params", params(step))
        orbax_item(folder / "ema_params", params(step + 10))
        orbax_item(folder / "opt_state", state(step)["opt_state"], ocdbt=False)
        for name, said in (("config", {"learning_rate": 0.5}), ("iterator", {"position": 7})):
            (folder / name).mkdir()
            (folder / name / "metadata").write_text(json.dumps(said))
        (folder / "metrics").mkdir()
        (folder / "metrics" / "metrics").write_text('{"loss": 1.5}')
        finish(folder, custom_metadata={"note": "x"})
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1, 2]
    last = run.checkpoints[-1]
    np.testing.assert_array_equal(last.variants["ema"]["conv.kernel"].read(), params(12)["conv"]["kernel"])
    assert list(last.parameters) == ["conv.kernel", "fc.kernel", "fc.bias"]
    told = {(s.name, s.kind): s.value for s in last.settings if s.text is None}
    assert told["learning_rate", "configured"] == 0.5
    assert told["learning_rate", "in force"] == 0.05


def test_odd_leaves(tmp_path):
    odd = {
        "i4": np.arange(-4, 4).astype(ml_dtypes.int4),
        "f8": np.arange(8).astype(ml_dtypes.float8_e4m3fn),
        "f8b": np.arange(8).astype(ml_dtypes.float8_e4m3b11fnuz),
        "scalar": np.array(2.5, "f4"),
        "none": None,
        "empty": {},
        "nothing": np.zeros((0, 3), "f4"),
        "kernel": np.ones((2, 3), "f4"),
    }
    save(tmp_path, 1, tree={"params": odd})
    one = load_run(tmp_path).checkpoints[0]
    assert set(one.parameters) == {"f8", "scalar", "nothing", "kernel"}
    np.testing.assert_array_equal(one.parameters["f8"].read(), odd["f8"].view("u1"))
    np.testing.assert_array_equal(one.buffers["i4"].read(), np.arange(-4, 4))
    assert one.parameters["nothing"].read().shape == (0, 3)
    assert one.parameters["scalar"].read() == 2.5


def test_saves_that_were_not_finished_are_left_out(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "3").rename(tmp_path / "3.orbax-checkpoint-tmp-1700000000")
    save(tmp_path, 4)
    finish(tmp_path / "4", commit_timestamp_nsecs=None)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1, 2]
    assert sorted(f.code for f in run.findings) == ["damaged-file", "unfinished-save"]
    assert "not finished" in next(f.message for f in run.findings if f.code == "damaged-file")


def test_the_mark_of_success_counts(tmp_path):
    save(tmp_path, 4)
    finish(tmp_path / "4", commit_timestamp_nsecs=None)
    (tmp_path / "4" / "commit_success.txt").write_text("done")
    assert load_run(tmp_path).checkpoints[0].step == 4


def test_without_tensorstore_the_extra_is_named(tmp_path, monkeypatch):
    save(tmp_path, 1)
    find = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "tensorstore" else find(name))
    with pytest.raises(MissingLibrary, match=r"orbax files need tensorstore: pip install 'smd-analyze\[orbax\]'$"):
        load_run(tmp_path)


def test_many_checkpoints_share_one_reading(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, tree={"params": params(step), "step": np.array(step)})
    run = load_run(tmp_path)
    places = [c.parameters.places for c in run.checkpoints]
    assert places[0] is places[1] is places[2]


def refusal(path) -> str:
    with pytest.raises(NothingToAnalyse) as caught:
        load_run(path)
    return str(caught.value)


def test_a_missing_array_a_missing_database_and_a_damaged_one(tmp_path):
    for name in "abc":
        save(tmp_path / name, 1)
    said = json.loads((tmp_path / "a/1/default/_METADATA").read_text())
    said["tree_metadata"]["x"] = {"key_metadata": [{"key": "lost", "key_type": 2}], "value_metadata": {}}
    (tmp_path / "a/1/default/_METADATA").write_text(json.dumps(said))
    assert "lost is named there, but its array is missing" in refusal(tmp_path / "a")
    (tmp_path / "b/1/default/manifest.ocdbt").unlink()
    assert "its array is missing; copy the whole folder" in refusal(tmp_path / "b")
    (tmp_path / "c/1/default/manifest.ocdbt").write_bytes(b"\x0c\xdb\x3a\x2a" + bytes(60))
    assert "tensorstore cannot read it" in refusal(tmp_path / "c")


@pytest.mark.parametrize("text", ["[]", "{", '{"tree_metadata": []}', '{"tree_metadata": {"a": 3}}', "[" * 100_000])
def test_metadata_that_is_none(tmp_path, text):
    save(tmp_path, 1)
    (tmp_path / "1/default/_METADATA").write_text(text)
    assert "_METADATA" in refusal(tmp_path)


def test_a_missing_chunk_is_no_zeros(tmp_path):
    save(tmp_path, 1, ocdbt=False)
    (tmp_path / "1/default/params.conv.kernel/0.0.0.0").unlink()
    one = load_run(tmp_path).checkpoints[0]
    with pytest.raises(DamagedFile, match=r"params\.conv\.kernel.*tensorstore cannot read it"):
        one.parameters["conv.kernel"].read()
    assert one.parameters["fc.bias"].read().shape == (5,)


def test_a_cut_chunk_and_a_lost_part_of_a_database(tmp_path):
    save(tmp_path / "a", 1, ocdbt=False)
    chunk = tmp_path / "a/1/default/params.conv.kernel/0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(DamagedFile, match="tensorstore cannot read it"):
        load_run(tmp_path / "a").checkpoints[0].parameters["conv.kernel"].read()
    save(tmp_path / "b", 1)
    run = load_run(tmp_path / "b")
    shutil.rmtree(tmp_path / "b/1/default/d")
    with pytest.raises(DamagedFile, match="tensorstore cannot read it"):
        run.checkpoints[0].parameters["conv.kernel"].read()


def test_a_shape_beyond_all_files_is_refused(tmp_path):
    save(tmp_path, 1, ocdbt=False)
    header = tmp_path / "1/default/params.conv.kernel/.zarray"
    said = json.loads(header.read_text())
    said["shape"][0] = said["chunks"][0] = 1 << 40
    header.write_text(json.dumps(said))
    assert "claims" in refusal(tmp_path)


def test_a_checkpoint_that_was_written_again_is_noticed(tmp_path):
    save(tmp_path, 1)
    run = load_run(tmp_path)
    os.utime(tmp_path / "1/default/manifest.ocdbt", ns=(1, 1))
    with pytest.raises(DamagedFile, match="changed while it was being read"):
        run.checkpoints[0].parameters["fc.bias"].read()


def test_links_that_leave_the_folder_are_refused(tmp_path):
    save(tmp_path / "other", 1, ocdbt=False)
    save(tmp_path / "a", 1, ocdbt=False)
    chunk = tmp_path / "a/1/default/params.fc.bias/0"
    chunk.unlink()
    chunk.symlink_to(tmp_path / "other/1/default/params.fc.bias/0")
    assert "is a link that leaves the checkpoint" in refusal(tmp_path / "a")
    save(tmp_path / "b", 1)
    shutil.rmtree(tmp_path / "b/1/default/d")
    (tmp_path / "b/1/default/d").symlink_to(tmp_path / "other")
    assert "is a link that leaves the checkpoint" in refusal(tmp_path / "b")


def test_links_into_the_hub_cache_are_followed(tmp_path):
    save(tmp_path, 1)
    snapshot = tmp_path / "hub/snapshots/abc"
    blobs = tmp_path / "hub/blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(p for p in (tmp_path / "1").rglob("*") if p.is_file()):
        place = snapshot / "1" / file.relative_to(tmp_path / "1")
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / str(number))
        place.symlink_to(blobs / str(number))
    found = load_run(snapshot).checkpoints[0].parameters["conv.kernel"].read()
    np.testing.assert_array_equal(found, params(1)["conv"]["kernel"])


def test_leaves_in_one_msgpack_beside_the_metadata(tmp_path):
    """As flax.training.checkpoints saved with Orbax before 0.5."""
    orbax_item(tmp_path / "checkpoint_7", {})
    leaves = {
        str(path): {
            "key_metadata": [{"key": k, "key_type": 2} for k in path],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": True},
        }
        for path, _ in flat(params(7) | {"lost": 1})
    }
    (tmp_path / "checkpoint_7/_METADATA").write_text(json.dumps({"tree_metadata": leaves}))
    (tmp_path / "checkpoint_7/checkpoint").write_bytes(packed(params(7) | {"step": 7}))
    run = load_run(tmp_path)
    found = run.checkpoints[0].parameters["fc.kernel"]
    np.testing.assert_array_equal(found.read(), params(7)["fc"]["kernel"].view("u2"))
    assert found.extent is not None


def test_a_database_of_one_host_that_was_not_merged(tmp_path):
    save(tmp_path, 1)
    item = tmp_path / "1/default"
    for name in ("manifest.ocdbt", "d"):
        (item / "ocdbt.process_0").mkdir(exist_ok=True)
        (item / name).rename(item / "ocdbt.process_0" / name)
    found = load_run(tmp_path).checkpoints[0].parameters["conv.kernel"].read()
    np.testing.assert_array_equal(found, params(1)["conv"]["kernel"])
    shutil.copytree(item / "ocdbt.process_0", item / "ocdbt.process_1")
    assert "its array is missing" in refusal(tmp_path)


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize("outside", ["../evil/", "{folder}/evil/"])
def test_a_database_whose_nodes_name_files_elsewhere(tmp_path, outside):
    """Its data files' folder is patched, and the checksums with it."""
    outside = outside.format(folder=tmp_path)
    inside = "x" * (len(outside) - 1) + "/"
    base = {"driver": "file", "path": f"{tmp_path}/1/"}
    config = {"compression": None, "max_inline_value_bytes": 0}
    write({"driver": "ocdbt", "base": base, "path": "a/", "config": config, "value_data_prefix": inside}, np.ones(4))
    shutil.move(tmp_path / "1" / inside.strip("/"), tmp_path / "evil")
    for file in [p for p in (tmp_path / "1").rglob("*") if p.is_file()]:
        data = file.read_bytes().replace(inside.encode(), outside.encode())
        out, at = b"", 0
        while at < len(data):
            length = int.from_bytes(data[at + 4 : at + 12], "little")
            body = data[at : at + length - 4]
            out, at = out + body + crc32c(body).to_bytes(4, "little"), at + length
        file.write_bytes(out)
    assert "tensorstore cannot read it: Invalid key" in refusal(tmp_path)
