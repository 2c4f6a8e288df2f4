"""How JAX' trainers nest and lay out their trees: scanned layers, groups, nnx, T5X, Levanter, big_vision, EasyLM, …"""

import json
from pathlib import Path

import numpy as np
import pytest

from smd_analyze.errors import NothingToAnalyse
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.tensors.cutting import cut
from smd_analyze.loading.tensors.places import Place, joined, read_tensor

pytest.importorskip("tensorstore")
from tensorstore_writers import flat, orbax_item, packed, write


def rng(step: int):
    made = np.random.default_rng(step)
    return lambda *shape: made.normal(size=shape).astype("f4")


def decoder(step: int, axis: int) -> dict:
    """Three scanned layers along an axis, as MaxText names them."""
    n = rng(step)

    def stacked(*shape: int) -> np.ndarray:
        return n(*shape[:axis], 3, *shape[axis:])

    layers = {
        "self_attention": {k: {"kernel": stacked(8, 2, 4)} for k in ("query", "key", "value")},
        "mlp": {"wi_0": {"kernel": stacked(8, 16)}, "wo": {"kernel": stacked(16, 8)}},
        "pre_norm": {"scale": stacked(8)},
    }
    layers["self_attention"]["out"] = {"kernel": stacked(2, 4, 8)}
    return {
        "token_embedder": {"embedding": n(11, 8)},
        "decoder": {"layers": layers, "decoder_norm": {"scale": n(8)}, "logits_dense": {"kernel": n(8, 11)}},
    }


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("form", ["orbax", "msgpack"])
def test_scanned_layers_are_cut(tmp_path, axis, form):
    for step in (1, 2):
        params = {"params": decoder(step, axis)}
        moments = {"mu": params, "nu": params, "count": np.array(step, "i4")}
        tree = {"params": params, "opt_state": {"0": moments, "1": {}}, "step": np.array(step, "i4")}
        if form == "orbax":
            orbax_item(tmp_path / str(step) / "items", tree)
        else:
            (tmp_path / f"state_{step}.msgpack").write_bytes(packed(tree))
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1, 2]
    last, true = run.checkpoints[-1], decoder(2, axis)["decoder"]["layers"]
    assert {n: t.layout for n, t in last.parameters.items() if ".1." in n} == {
        "decoder.layers.1.self_attention.query.kernel": "IOO",
        "decoder.layers.1.self_attention.key.kernel": "IOO",
        "decoder.layers.1.self_attention.value.kernel": "IOO",
        "decoder.layers.1.self_attention.out.kernel": "IIO",
        "decoder.layers.1.mlp.wi_0.kernel": "IO",
        "decoder.layers.1.mlp.wo.kernel": "IO",
        "decoder.layers.1.pre_norm.scale": "O",
    }
    assert len(last.parameters) == 3 * 7 + 3
    for name, whole in flat(true):
        for i in range(3):
            title = ".".join(("decoder", "layers", str(i), *name))
            np.testing.assert_array_equal(last.parameters[title].read(), whole.take(i, axis))
            np.testing.assert_array_equal(last.optimizer_state[title]["exp_avg"].read(), whole.take(i, axis))
            assert set(last.optimizer_state[title]) == {"exp_avg", "exp_avg_sq", "step"}
    assert [f.code for f in run.findings] == ["stacked-layers"]
    assert f"3 layers each, along axis {axis}" in run.findings[0].message


def test_scanned_layers_under_the_names_that_flax_gives(tmp_path):
    n = rng(0)
    block = {"LayerNorm_0": {"scale": n(2, 8), "bias": n(2, 8)}, "Dense_0": {"kernel": n(2, 8, 4), "bias": n(2, 4)}}
    bare = {"Dense_0": {"kernel": n(2, 8, 4)}, "Dense_1": {"kernel": n(2, 4, 8)}}
    params = {"ScanBlock_0": block, "ScanMLP_1": bare, "Dense_2": {"kernel": n(4, 4), "bias": n(4)}}
    (tmp_path / "a.msgpack").write_bytes(packed({"params": params}))
    names = set(load_run(tmp_path).checkpoints[0].parameters)
    assert {x for x in names if x.endswith("kernel")} == {
        "ScanBlock_0.0.Dense_0.kernel", "ScanBlock_0.1.Dense_0.kernel", "ScanMLP_1.0.Dense_0.kernel", "Dense_2.kernel",
        "ScanMLP_1.1.Dense_0.kernel", "ScanMLP_1.0.Dense_1.kernel", "ScanMLP_1.1.Dense_1.kernel",
    }  # fmt: skip


def test_layers_that_cannot_be_cut_are_said(tmp_path):
    """Flax cuts arrays above 1 GiB into flat chunks; layers along the second axis are then scattered."""
    kernel = rng(0)(8, 3, 4)
    chunked = {
        "__msgpack_chunked_array__": 1,
        "shape": {str(i): n for i, n in enumerate(kernel.shape)},
        "chunks": {str(i): part for i, part in enumerate(np.array_split(kernel.reshape(-1), 5))},
    }
    layers = {"norm": {"scale": rng(1)(8, 3)}, "wi": {"kernel": chunked}}
    (tmp_path / "a.msgpack").write_bytes(packed({"params": {"decoder": {"layers": layers}}}))
    run = load_run(tmp_path)
    assert set(run.checkpoints[0].parameters) == {"decoder.layers.norm.scale", "decoder.layers.wi.kernel"}
    assert [(f.code, f.severity) for f in run.findings] == [("stacked-layers", "warning")]


def test_layers_side_by_side_stay_whole(tmp_path):
    n = rng(0)
    block = {"query": {"kernel": n(8, 2, 4)}, "norm": {"scale": n(8)}, "wi": {"kernel": n(8, 8)}}
    params = {
        "layers_0": block,
        "layers_1": block,
        "LayerNorm_0": {"scale": n(8), "bias": n(8)},
        "layers": {"0": block},
    }
    (tmp_path / "a.msgpack").write_bytes(packed({"params": params}))
    names = load_run(tmp_path).checkpoints[0].parameters
    assert "layers_0.query.kernel" in names
    assert "LayerNorm_0.bias" in names
    assert len(names) == 11


def test_labels_of_multi_transform_are_parameter_groups(tmp_path):
    n = rng(0)
    params = {"a": {"kernel": n(4, 4), "bias": n(4)}}
    states = {
        label: {"inner_state": {
            "count": np.array(3, "i4"),
            "hyperparams": {"learning_rate": np.array(rate, "f4"), "weight_decay": np.array(decay, "f4")},
            "inner_state": {"0": {"count": np.array(3, "i4"), "mu": {"a": part}, "nu": {"a": part}}},
        }}
        for label, rate, decay, part in (
            ("decay", 0.1, 0.5, {"kernel": n(4, 4)}), ("rest", 0.2, 0.0, {"bias": n(4)}),
        )
    }  # fmt: skip
    orbax_item(tmp_path / "3/default", {"params": params, "opt_state": {"inner_states": states}})
    run = load_run(tmp_path)
    assert run.parameter_groups == {"decay": ("a.kernel",), "rest": ("a.bias",)}
    told = {(s.parameter_group, s.name): s.value for s in run.checkpoints[0].settings if s.text is None}
    assert told == {
        ("decay", "learning_rate"): 0.1, ("decay", "weight_decay"): 0.5,
        ("rest", "learning_rate"): 0.2, ("rest", "weight_decay"): 0.0,
    }  # fmt: skip


def test_accumulated_gradients_count_updates_not_batches(tmp_path):
    for step in (8, 16):
        inner = {"0": {"trace": {"a": {"kernel": np.ones((3, 3), "f4")}}}}
        multi = {"mini_step": np.array(0, "i4"), "gradient_step": np.array(step // 4, "i4"), "inner_opt_state": inner,
                 "acc_grads": {"a": {"kernel": np.zeros((3, 3), "f4")}}}  # fmt: skip
        tree = {"params": {"a": {"kernel": np.ones((3, 3), "f4") * step}}, "opt_state": multi, "step": np.array(step)}
        orbax_item(tmp_path / f"{step}/default", tree)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [2, 4]
    assert run.ordered_by == "optax' gradient_step in the file"
    assert {s.text for s in run.checkpoints[0].settings} == {"SGD"}


def test_nnx_tuple_of_model_and_optimizer(tmp_path):
    for step in (2, 4):
        n = rng(step)
        model = {
            "conv": {"kernel": {"value": n(3, 3, 2, 4)}},
            "bn": {"scale": {"value": n(4)}, "bias": {"value": n(4)}, "mean": {"value": n(4)}, "var": {"value": n(4)}},
            "attn": {"query": {"kernel": {"value": n(4, 2, 2)}, "bias": {"value": n(2, 2)}}},
        }
        trace = {"conv": {"kernel": {"value": n(3, 3, 2, 4)}}}
        optimizer = {"step": {"value": np.array(step, "u4")}, "opt_state": {"0": {"trace": trace}, "1": {}}}
        orbax_item(tmp_path / f"save_{step}", {"0": model, "1": optimizer})
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert (run.ordered_by, last.step) == ("step in the file", 4)
    assert {n: t.layout for n, t in last.parameters.items()} == {
        "conv.kernel": "HWIO", "bn.scale": "O", "bn.bias": "O", "attn.query.kernel": "IOO", "attn.query.bias": "OO",
    }  # fmt: skip
    assert list(last.buffers) == ["batch_stats.bn.mean", "batch_stats.bn.var"]
    assert set(last.optimizer_state["conv.kernel"]) == {"momentum_buffer"}


def t5x(folder: Path, step: int, path: str = "") -> dict:
    """A folder as T5X writes it: large leaves as zarr, the rest in the msgpack."""
    n = rng(step)
    target = {"decoder": {"wi_0": {"kernel": n(8, 16)}, "norm": {"scale": n(8)}}}
    folder.mkdir(parents=True)
    name = "target.decoder.wi_0.kernel"
    write({"driver": "file", "path": f"{folder}/{name}/"}, target["decoder"]["wi_0"]["kernel"], chunks=[4, 16])
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": path or name + "/"}, "dtype": "float32"}
    factors = {"m": np.zeros(1, "f4"), "v": np.zeros(1, "f4"), "v_row": n(8), "v_col": n(16)}
    tree = {
        "target": {"decoder": {**target["decoder"], "wi_0": {"kernel": spec}}},
        "state": {"step": np.int32(step), "param_states": {"decoder": {"wi_0": {"kernel": factors}}}},
    }
    (folder / "checkpoint").write_bytes(packed({"version": 3, "optimizer": tree}))
    return target


def test_t5x(tmp_path):
    for step in (1000, 2000):
        true = t5x(tmp_path / f"checkpoint_{step}", step)
    t5x(tmp_path / "checkpoint_3000.tmp-1700000000", 3000)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1000, 2000]
    last = run.checkpoints[-1]
    assert last.format == "t5x"
    np.testing.assert_array_equal(last.parameters["decoder.wi_0.kernel"].read(), true["decoder"]["wi_0"]["kernel"])
    np.testing.assert_array_equal(last.parameters["decoder.norm.scale"].read(), true["decoder"]["norm"]["scale"])
    assert last.parameters["decoder.wi_0.kernel"].layout == "IO"
    assert {s.text for s in last.settings} == {"Adafactor"}
    assert [f.code for f in run.findings] == ["unfinished-save"]


@pytest.mark.parametrize("path", ["../other", "/etc", "target.decoder.wi_0.kernel/../../x", "gs://bucket/x", "lost"])
def test_t5x_specs_that_leave_the_folder_are_refused(tmp_path, path):
    t5x(tmp_path / "checkpoint_1", 1, path)
    words = "its array is missing" if path == "lost" else "refused: names an array outside its folder"
    with pytest.raises(NothingToAnalyse, match=words):
        load_run(tmp_path)


def test_orbax_before_its_metadata(tmp_path):
    kernel = rng(0)(3, 4)
    write({"driver": "file", "path": f"{tmp_path}/5/default/params.a.kernel/"}, kernel)
    tree = {"params": {"a": {"kernel": "PLACEHOLDER://params.a.kernel"}}, "step": np.int32(5)}
    (tmp_path / "5/default/checkpoint").write_bytes(packed(tree))
    one = load_run(tmp_path).checkpoints[0]
    assert one.step == 5
    np.testing.assert_array_equal(one.parameters["a.kernel"].read(), kernel)


@pytest.mark.parametrize("ocdbt", [False, True])
@pytest.mark.parametrize("out_first", [False, True])
def test_levanter(tmp_path, ocdbt, out_first):
    for step in (100, 200):
        n = rng(step)
        shapes = {"q_proj": (2, 4, 8), "o_proj": (8, 2, 4)} if out_first else {"q_proj": (8, 2, 4), "o_proj": (2, 4, 8)}
        attention = {k: {"weight": n(3, *s)} for k, s in shapes.items()}
        layers = {"stacked": {"attn": attention, "ln_1": {"weight": n(3, 8)}}}
        model = {"transformer": {"layers": layers, "ln_f": {"weight": n(8)}}, "embeddings": {"weight": n(11, 8)}}
        tree = {"model": model, "opt_state": {"0": {"mu": model, "nu": model, "count": np.array(step)}}}
        folder = tmp_path / f"step-{step}"
        for path, value in flat(tree):
            base = {"driver": "file", "path": f"{folder}/{'/'.join(path[:-1])}/"}
            place = {"driver": "file", "path": f"{folder}/{'/'.join(path)}/"}
            write({"driver": "ocdbt", "base": base, "path": path[-1] + "/"} if ocdbt else place, value)
        (folder / "metadata.json").write_text(json.dumps({"step": step, "is_temporary": False}))
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [100, 200]
    last = run.checkpoints[-1]
    assert last.format == "tensorstore"
    name = "transformer.layers.2.attn.q_proj.weight"
    np.testing.assert_array_equal(last.parameters[name].read(), attention["q_proj"]["weight"][2])
    assert last.parameters[name].layout == ("OOI" if out_first else "IOO")
    assert last.parameters["transformer.layers.2.attn.o_proj.weight"].layout == ("OII" if out_first else "IIO")
    assert set(last.optimizer_state[name]) == {"exp_avg", "exp_avg_sq", "step"}


def test_big_vision_and_pax_folders(tmp_path):
    kernel = rng(0)(4, 6)
    for step in (1000, 2000):
        for name in ("params~head~kernel", "opt~0~mu~head~kernel"):
            write({"driver": "file", "path": f"{tmp_path}/bv/checkpoint.bv-{step:09d}/{name}/"}, kernel * step)
        state = tmp_path / f"pax/checkpoint_{step:08d}/state"
        for name in ("mdl_vars.params.lm.w", "opt_states_0.m.params.lm.w", "opt_states_0.v.params.lm.w"):
            write({"driver": "file", "path": f"{state}/{name}/"}, kernel * step)
        write({"driver": "file", "path": f"{state}/step/"}, np.array(step))
    run = load_run(tmp_path / "bv")
    assert [c.step for c in run.checkpoints] == [1000, 2000]
    assert run.step_unit == "optimizer steps"
    assert set(run.checkpoints[0].optimizer_state) == {"head.kernel"}
    run = load_run(tmp_path / "pax")
    assert run.ordered_by == "step in the file"
    assert {n: t.layout for n, t in run.checkpoints[0].parameters.items()} == {"lm.w": "IO"}
    assert set(run.checkpoints[0].optimizer_state["lm.w"]) == {"exp_avg", "exp_avg_sq"}


def test_a_zarr_group_is_no_checkpoint(tmp_path):
    write({"driver": "file", "path": f"{tmp_path}/data/x/"}, np.ones(3))
    (tmp_path / "data/.zgroup").write_text("{}")
    with pytest.raises(NothingToAnalyse):
        load_run(tmp_path)


def test_easylm_streams(tmp_path):
    for step in (10, 20):
        kernel = rng(step)(4, 5)
        pairs = [(["step"], packed(np.int32(step))), (["params", "params", "a", "kernel"], packed(kernel))]
        (tmp_path / f"streaming_train_state_{step}").write_bytes(b"".join(packed([k, v]) for k, v in pairs))
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [10, 20]
    found = run.checkpoints[-1].parameters["a.kernel"]
    np.testing.assert_array_equal(found.read(), kernel)
    assert found.extent is not None
    whole = (tmp_path / "streaming_train_state_20").read_bytes()
    (tmp_path / "streaming_train_state_20").write_bytes(whole[:-4])
    assert [f.code for f in load_run(tmp_path).findings] == ["damaged-file"]


def test_cut_of_raw_bytes(tmp_path):
    array = np.arange(24, dtype="f4").reshape(2, 3, 4)
    (tmp_path / "x").write_bytes(array.tobytes())
    status = (tmp_path / "x").stat()
    files = [FileId(str(tmp_path / "x"), status.st_size, status.st_mtime_ns)]
    plain = Place((2, 3, 4), "float32", 0)
    inline = Place((2, 3, 4), "float32", 0, inline=array.tobytes())
    pieces = [((0, 0, 0), Place((1, 3, 4), "float32", 0)), ((1, 0, 0), Place((1, 3, 4), "float32", 48))]
    for place in (plain, inline, joined((2, 3, 4), "float32", pieces, "x")):
        for axis in range(3):
            for index in range(array.shape[axis]):
                part = cut(place, axis, index)
                np.testing.assert_array_equal(read_tensor(part, files), array.take(index, axis))
                np.testing.assert_array_equal(read_tensor(cut(part, 0, 1), files), array.take(index, axis)[1])
    assert cut(plain, 0, 1).strides is None
    flat_pieces = [((0,), Place((10,), "float32", 0)), ((10,), Place((14,), "float32", 40))]
    place = joined((2, 3, 4), "float32", flat_pieces, "x")
    for index in range(2):
        np.testing.assert_array_equal(read_tensor(cut(place, 0, index), files), array[index])
        np.testing.assert_array_equal(read_tensor(cut(cut(place, 0, index), 0, 2), files), array[index, 2])
    with pytest.raises(ValueError, match="flat pieces"):
        cut(place, 1, 0)
