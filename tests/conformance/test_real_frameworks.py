"""The real libraries train and write, we read: every array, step, state and hyperparameter as they held them.

Each test is skipped where its library is not installed. Run with: pytest -m frameworks
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .comparing import Outcome, compare
from .truth import as_json

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore")]
STEPS = (5, 10, 15)
Arrays = Mapping[str, Any]


def save(path: str, step: int, arrays: Arrays, hyper: Arrays | None = None, **copies: Any) -> dict[str, Any]:
    """One save as expected.json holds it; `optimizer` and `variants` are dicts of dicts of arrays."""
    deep = {k: {n: entries(v) for n, v in found.items()} for k, found in copies.items()}
    return {"path": f"run/{path}", "step": step, "hyper": hyper or {}, "params": entries(arrays), **deep}


def entries(arrays: Arrays) -> dict[str, Any]:
    return {n: as_json(np.asarray(a, dtype=np.float64)) for n, a in arrays.items()}


def check(folder: Path, saves: list[dict[str, Any]], *libraries: str) -> Outcome:
    """Compare what lies in folder/run with the saves; nothing may differ, and no hyperparameter may be unknown."""
    truth = {"static": dict.fromkeys(libraries, ""), "checkpoints": saves}
    (folder / "run.expected.json").write_text(json.dumps(truth))
    found = compare(folder, "run")
    if "tensorstore" in found.refusal:
        pytest.skip(found.refusal)
    assert not found.differences
    assert found.counts["hyper absent"] == 0
    assert found.counts["steps equal"] == len(saves)
    return found


# --- torch ---------------------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def torch_training(adam: bool = True) -> Any:
    """(step, net, optimizer, scheduler) at each of STEPS, while a small net trains."""
    torch.manual_seed(0)
    net = Net()
    split = [{"params": [net.conv.weight, net.fc.weight], "weight_decay": 0.1},
             {"params": [net.bn.weight, net.bn.bias, net.fc.bias], "weight_decay": 0.0}]  # fmt: skip
    kind = torch.optim.AdamW(split, 1e-2, (0.8, 0.95)) if adam else torch.optim.SGD(split, 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(kind, 20)
    for step in range(1, STEPS[-1] + 1):
        loss = net(torch.randn(8, 3, 8, 8)).square().mean()
        kind.zero_grad()
        loss.backward()
        kind.step()
        schedule.step()
        if step in STEPS:
            yield step, net, kind, schedule


def torch_save(path: str, step: int, net: Net, kind: torch.optim.Optimizer, **copies: Any) -> dict[str, Any]:
    """The truth of a torch run: arrays, the optimizer's states by name, hyperparameters per group."""
    arrays = {n: t.detach().double().numpy().copy() for n, t in net.state_dict().items()}
    states = {
        n: {k: v.double().numpy().copy() for k, v in kind.state[p].items() if torch.is_tensor(v) and k != "step"}
        for n, p in net.named_parameters()
    }
    hyper: dict[str, Any] = {"lr": kind.param_groups[0]["lr"], "weight_decay": [0.1, 0.0]}
    hyper |= {k: list(v) if k == "betas" else v for k, v in kind.param_groups[0].items() if k in ("betas", "momentum")}
    return save(path, step, arrays, hyper, optimizer=states, **copies)


@pytest.mark.parametrize("adam", [True, False])
@pytest.mark.parametrize("new", [True, False])
def test_torch_trainer_with_an_average(tmp_path: Path, adam: bool, new: bool) -> None:
    (tmp_path / "run").mkdir()
    saves, average = [], None
    for step, net, kind, schedule in torch_training(adam):
        average = average or torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))  # noqa: E501  # fmt: skip
        average.update_parameters(net)
        made = {"model": net.state_dict(), "ema": average.state_dict(), "optimizer": kind.state_dict(),
                "scheduler": schedule.state_dict(), "step": step, "args": {"lr": 7.0}}  # fmt: skip
        torch.save(made, tmp_path / "run" / f"ckpt_{step}.pt", _use_new_zipfile_serialization=new)
        ema = {n: p.detach().numpy().copy() for n, p in average.module.named_parameters()}
        saves.append(torch_save(f"ckpt_{step}.pt", step, net, kind, variants={"ema": ema}))
    found = check(tmp_path, saves, "torch")
    assert found.counts["copies and states equal"] == 3 * (10 if adam else 5) + 3 * 5
    assert found.counts["in a parameter group"] == 15


def test_torch_distributed_checkpoint(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import save as dcp_save
    from torch.distributed.checkpoint.state_dict import get_state_dict

    saves = []
    for step, net, kind, _ in torch_training():
        model, optimizer = get_state_dict(net, kind)
        dcp_save({"model": model, "optimizer": optimizer}, checkpoint_id=str(tmp_path / "run" / f"step-{step}"), no_dist=True)  # noqa: E501  # fmt: skip
        saves.append(torch_save(f"step-{step}", step, net, kind))
    check(tmp_path, saves, "torch")


@pytest.mark.parametrize("kind", ["module", "script", "traced export"])
def test_torch_models_without_an_optimizer(tmp_path: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    saves = []
    for step, net, _, _ in torch_training():
        name = f"net_step{step}.{'pt2' if kind == 'traced export' else 'pt'}"
        if kind == "module":
            torch.save(net, tmp_path / "run" / name)
        elif kind == "script":
            torch.jit.save(torch.jit.script(net), tmp_path / "run" / name)
        else:
            torch.export.save(torch.export.export(net, (torch.randn(2, 3, 8, 8),)), tmp_path / "run" / name)
        arrays = {n: t.detach().double().numpy().copy() for n, t in net.state_dict().items()}
        saves.append(save(name, step, arrays))
    check(tmp_path, saves, "torch")


def test_safetensors_and_numpy_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for kind in ("safetensors", "npz", "packed.npz", "pkl"):
        folder = tmp_path / kind
        (folder / "run").mkdir(parents=True)
        saves = []
        for step, net, _, _ in torch_training():
            path = folder / "run" / f"step_{step}.{kind}"
            arrays = {n: t.detach().numpy().copy() for n, t in net.state_dict().items()}
            if kind == "safetensors":
                save_file(net.state_dict(), path, {"format": "pt"})
            elif kind == "pkl":
                path.write_bytes(pickle.dumps({"params": arrays, "step": step}))
            else:
                (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
            saves.append(save(path.name, step, arrays))
        check(folder, saves, "torch")


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    saves: list[dict[str, Any]] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)

        def on_save_checkpoint(self, checkpoint: Any) -> None:
            step = self.trainer.global_step
            arrays = {n: t.detach().double().numpy().copy() for n, t in self.state_dict().items()}
            kind = self.trainer.optimizers[0]
            states = {n: {k: kind.state[p][k].numpy().copy() for k in ("exp_avg", "exp_avg_sq")} for n, p in self.named_parameters()}  # noqa: E501  # fmt: skip
            hyper = {"lr": 1e-2, "weight_decay": 0.1, "betas": [0.9, 0.999]}
            saves.append(save(f"e=0-step={step}.ckpt", step, arrays, hyper, optimizer=states))

    keep = ModelCheckpoint(tmp_path / "run", "e={epoch}-step={step}", every_n_train_steps=5, save_top_k=-1, auto_insert_metric_name=False)  # noqa: E501  # fmt: skip
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(60, 3, 8, 8)), 4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    lightning.Trainer(max_epochs=1, callbacks=[keep], **quiet).fit(Module(), data)
    check(tmp_path, list({s["path"]: s for s in saves}.values()), "torch")


def test_transformers_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    saves = []
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size))
    said = transformers.TrainingArguments(
        tmp_path / "run", max_steps=15, save_steps=5, per_device_train_batch_size=2, learning_rate=1e-3, use_cpu=True,
        weight_decay=0.1, report_to=[], disable_tqdm=True, lr_scheduler_type="cosine",
    )  # fmt: skip

    class Keep(transformers.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            group = more["optimizer"].param_groups
            hyper = {"lr": group[0]["lr"], "weight_decay": [g["weight_decay"] for g in group]}
            hyper["betas"] = list(group[0]["betas"])
            arrays = {n: t.detach().double().numpy().copy() for n, t in model.state_dict().items()}
            saves.append(save(f"checkpoint-{state.global_step}", state.global_step, arrays, hyper))

    data = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(20)]
    transformers.Trainer(model, said, train_dataset=data, callbacks=[Keep()]).train()
    check(tmp_path, saves, "torch", "transformers")


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "run").mkdir()
    saves = []
    for step, net, _, _ in torch_training():
        arrays = {n: t.detach().numpy().copy() for n, t in net.named_parameters()}
        made = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
        conv = onnx.helper.make_node("Conv", ["x", "conv.weight"], ["y"])
        dense = onnx.helper.make_node("Gemm", ["y", "fc.weight", "fc.bias"], ["z"], transB=1)
        graph = onnx.helper.make_graph([conv, dense], "net", [], [], made)
        onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), tmp_path / "run" / f"net_step{step}.onnx")
        saves.append(save(f"net_step{step}.onnx", step, arrays))
    check(tmp_path, saves, "onnx")


# --- Keras and TensorFlow ------------------------------------------------------------------------------------------


def keras_model(optimizer: Any = None) -> Any:
    """A compiled model of Keras 3, on whichever backend there is, that has been trained for no step yet."""
    have = [b for b in ("tensorflow", "jax", "torch") if importlib.util.find_spec(b)]
    os.environ.setdefault("KERAS_BACKEND", have[0])
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    parts = [layers.Conv2D(4, 3, use_bias=False, name="conv"), layers.BatchNormalization(name="bn")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *parts, layers.Flatten(), layers.Dense(10, name="fc")])
    chosen = optimizer or keras.optimizers.AdamW(1e-2, weight_decay=0.1, beta_1=0.8, beta_2=0.95)
    model.compile(chosen, "mse")
    return model


def keras_arrays(model: Any) -> dict[str, Any]:
    return {v.path.split("/", 1)[-1] if v.path.count("/") > 1 else v.path: np.array(v) for v in model.weights}


@pytest.mark.parametrize("ending", ["keras", "weights.h5", "h5"])
def test_keras(tmp_path: Path, ending: str) -> None:
    model = keras_model()
    (tmp_path / "run").mkdir()
    saves = []
    rng = np.random.default_rng(0)
    for number, step in enumerate(STEPS, 1):
        for _ in range(5):
            model.train_on_batch(rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(4, 10)))
        path = f"model_{number:02d}.{ending}"
        (model.save_weights if ending == "weights.h5" else model.save)(tmp_path / "run" / path)
        hyper = {"lr": 1e-2} if ending == "weights.h5" else {"lr": 1e-2, "weight_decay": 0.1, "betas": [0.8, 0.95]}
        saves.append(save(path, step, keras_arrays(model), hyper))
    check(tmp_path, saves, "keras")


def test_tensorflow_checkpoint_manager(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    model = keras_model(keras.optimizers.SGD(0.1, momentum=0.9))
    tracked = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    manager = tf.train.CheckpointManager(tracked, str(tmp_path / "run"), None)
    saves, rng = [], np.random.default_rng(0)
    for step in STEPS:
        for _ in range(5):
            model.train_on_batch(rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(4, 10)))
        manager.save(step)
        saves.append(save(f"ckpt-{step}.index", step, keras_arrays(model), {"lr": 0.1}))
    check(tmp_path, saves, "tensorflow")


# --- JAX -----------------------------------------------------------------------------------------------------------


def flax_training() -> Any:
    """(step, TrainState, arrays, hyper) while a small Flax net trains with optax' AdamW."""
    jax, linen, optax = (pytest.importorskip(n) for n in ("jax", "flax.linen", "optax"))
    from flax.training.train_state import TrainState

    class Small(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.LayerNorm(name="ln")(linen.Conv(4, (3, 3), use_bias=False, name="conv")(x))
            return linen.Dense(10, name="fc")(x.mean((1, 2)))

    net, x = Small(), jax.numpy.ones((4, 8, 8, 3))
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2, b1=0.8, b2=0.95, weight_decay=0.1)
    state = TrainState.create(apply_fn=net.apply, params=net.init(jax.random.key(0), x)["params"], tx=tx)
    hyper = {"lr": 1e-2, "weight_decay": 0.1, "betas": [0.8, 0.95]}
    for step in range(1, STEPS[-1] + 1):
        noise = jax.random.normal(jax.random.key(step), x.shape)
        slope = jax.grad(lambda p, x=noise: (net.apply({"params": p}, x) ** 2).mean())
        state = state.apply_gradients(grads=slope(state.params))
        if step in STEPS:
            arrays = {"/".join(k.key for k in path): np.array(a) for path, a in jax.tree_util.tree_leaves_with_path(state.params)}  # noqa: E501  # fmt: skip
            moments = state.opt_state.inner_state[0]
            states = {n: {"exp_avg": at(moments.mu, n), "exp_avg_sq": at(moments.nu, n)} for n in arrays}
            yield step, state, arrays, hyper, states


def at(tree: Any, name: str) -> np.ndarray:
    for key in name.split("/"):
        tree = tree[key]
    return np.array(tree)


@pytest.mark.parametrize("kind", ["msgpack", "npz", "pickle", "orbax", "orbax manager"])
def test_flax(tmp_path: Path, kind: str) -> None:
    serialization = pytest.importorskip("flax.serialization")
    folder = tmp_path / "run"
    folder.mkdir()
    saves, manager = [], None
    for step, state, arrays, hyper, states in flax_training():
        path = {"msgpack": f"state_{step}.msgpack", "npz": f"step_{step}.npz", "pickle": f"step_{step}.pkl"}.get(kind, str(step))  # noqa: E501  # fmt: skip
        if kind == "msgpack":
            (folder / path).write_bytes(serialization.to_bytes(state))
        elif kind == "npz":
            np.savez(folder / path, **{f"params/{n}": a for n, a in arrays.items()})
        elif kind == "pickle":
            (folder / path).write_bytes(pickle.dumps(serialization.to_state_dict(state)))
        else:
            orbax = pytest.importorskip("orbax.checkpoint")
            tree = {"params": state.params, "opt_state": state.opt_state, "step": state.step}
            if kind == "orbax":
                with orbax.StandardCheckpointer() as writer:
                    writer.save(folder / path, tree)
            else:
                manager = manager or orbax.CheckpointManager(folder)
                manager.save(step, args=orbax.args.StandardSave(tree))
                manager.wait_until_finished()
        known = {"hyper": hyper, "optimizer": states} if kind != "npz" else {}
        saves.append(save(path, step, arrays, known.pop("hyper", None), **known))
    if manager is not None:
        manager.close()
    check(tmp_path, saves, "flax")


@pytest.mark.parametrize("several", [False, True])
def test_mlx(tmp_path: Path, several: bool) -> None:
    """One optimizer, and MultiOptimizer with one per parameter group."""
    mx, nn, optim = (pytest.importorskip(n) for n in ("mlx.core", "mlx.nn", "mlx.optimizers"))
    from mlx.utils import tree_flatten

    (tmp_path / "run").mkdir()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm(4), nn.Linear(4, 10))
    one = optim.AdamW(optim.cosine_decay(1e-2, 40))
    both = [one, optim.SGD(0.1, momentum=0.9)] if several else []
    kind = optim.MultiOptimizer(both, [lambda name, weight: weight.ndim > 1]) if several else one
    slope = nn.value_and_grad(net, lambda x: (net(x) ** 2).mean())
    saves = []
    for step in range(1, STEPS[-1] + 1):
        kind.update(net, slope(mx.random.normal((4, 8, 8, 3)))[1])
        mx.eval(net.parameters(), kind.state)
        if step in STEPS:
            net.save_weights(str(tmp_path / "run" / f"{step:07d}_model.safetensors"))
            kept = dict(tree_flatten(kind.state))
            mx.save_safetensors(str(tmp_path / "run" / f"{step:07d}_optimizer.safetensors"), kept)
            moments = {n: v for n, v in tree_flatten(one.state) if n.endswith((".m", ".v"))}
            states: dict[str, Any] = {}
            for name, value in moments.items():
                states.setdefault(name[:-2], {})[{"m": "exp_avg", "v": "exp_avg_sq"}[name[-1]]] = np.array(value)
            arrays = {n: np.array(v) for n, v in tree_flatten(net.parameters())}
            rates = [float(k.learning_rate) for k in both] if several else float(one.learning_rate)
            saves.append(save(f"{step:07d}_model.safetensors", step, arrays, {"lr": rates}, optimizer=states))
    found = check(tmp_path, saves, "mlx")
    assert found.counts["in a parameter group"] == (18 if several else 0)


def test_equinox(tmp_path: Path) -> None:
    equinox, jax = pytest.importorskip("equinox"), pytest.importorskip("jax")
    (tmp_path / "run").mkdir()
    saves = []
    for step in STEPS:
        layer = equinox.nn.Linear(4, 3, key=jax.random.key(step))
        equinox.tree_serialise_leaves(tmp_path / "run" / f"step_{step}.eqx", layer)
        saves.append(save(f"step_{step}.eqx", step, {"weight": np.array(layer.weight), "bias": np.array(layer.bias)}))
    check(tmp_path, saves, "equinox")


def test_tinygrad(tmp_path: Path) -> None:
    tinygrad = pytest.importorskip("tinygrad")
    if shutil.which("clang") is None:
        pytest.skip("tinygrad needs clang on the CPU")
    from tinygrad.nn.state import get_state_dict, safe_save

    (tmp_path / "run").mkdir()
    saves = []
    for step in STEPS:
        layer = tinygrad.nn.Conv2d(3, 4, 3)
        safe_save(get_state_dict(layer), str(tmp_path / "run" / f"step_{step}.safetensors"))
        saves.append(save(f"step_{step}.safetensors", step, {n: t.numpy() for n, t in get_state_dict(layer).items()}))
    check(tmp_path, saves, "tinygrad")


def test_gguf(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    (tmp_path / "run").mkdir()
    saves, rng = [], np.random.default_rng(0)
    for step in STEPS:
        arrays = {"blk.0.ffn_up.weight": rng.normal(size=(6, 4)).astype(np.float32), "output_norm.weight": np.ones(4, np.float32) + step}  # noqa: E501  # fmt: skip
        writer = gguf.GGUFWriter(str(tmp_path / "run" / f"model-step{step}.gguf"), "llama")
        for name, array in arrays.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        saves.append(save(f"model-step{step}.gguf", step, arrays))
    check(tmp_path, saves, "gguf")
