"""The real libraries train and write, we read: Keras, TensorFlow, JAX, MLX and others (see test_real_frameworks.py)."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .written import STEPS, check, save

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore")]


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
