"""What a Keras optimizer's numbered variables are: averages, accumulators, states of each class, wrapped optimizers."""

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Checkpoint

RNG = np.random.default_rng(1)
WEIGHTS = {  # in the order of the layers; the file keeps them by class and number
    "first": ("dense", {"kernel": (4, 5), "bias": (5,)}, "Dense"),
    "norm": (
        "batch_normalization",
        {"gamma": (5,), "beta": (5,), "mean": (5,), "variance": (5,)},
        "BatchNormalization",
    ),
    "last": ("dense_1", {"kernel": (5, 3), "bias": (3,)}, "Dense"),
}
TRAINED = [
    (f"{layer}/{n}", s)
    for layer, (_, own, _) in WEIGHTS.items()
    for n, s in own.items()
    if n not in ("mean", "variance")
]


def write(
    path: Path, optimizer: dict, variables: list[np.ndarray], group: str = "optimizer/vars", layers: bool = True
) -> None:
    """A .keras archive with the given variables of its optimizer."""
    inner = path.with_suffix(".h5")
    with h5py.File(inner, "w") as f:
        for layer, (own, shapes, _) in WEIGHTS.items():
            node = f.create_group(f"layers/{own}/vars")
            node.attrs["name"] = layer
            for i, shape in enumerate(shapes.values()):
                node.create_dataset(str(i), data=RNG.standard_normal(shape).astype(np.float32))
        node = f.create_group(group)
        node.attrs["name"] = "thing"
        for i, value in enumerate(variables):
            node.create_dataset(str(i), data=value)
    entries = [{"class_name": kind, "config": {"name": name}} for name, (_, _, kind) in WEIGHTS.items()]
    told = {"class_name": "Functional", "config": {"layers": entries if layers else []}}
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("config.json", json.dumps(told | {"compile_config": {"optimizer": optimizer}}))
        z.write(inner, "model.weights.h5")
    inner.unlink()


def states(*marks: float, shapes: list[tuple[str, tuple[int, ...]]] = TRAINED) -> list[np.ndarray]:
    """For each trained variable in turn an array per mark, filled with mark + the variable's number."""
    return [np.full(s, m + i, np.float32) for i, (_, s) in enumerate(shapes) for m in marks]


def loaded(tmp_path: Path) -> Checkpoint:
    return load_run(tmp_path).checkpoints[-1]


def kept(c: Checkpoint) -> dict[str, dict[str, float]]:
    return {
        n: {k: float(p.read().ravel()[0]) for k, p in s.items() if k != "step"} for n, s in c.optimizer_state.items()
    }


HEAD = [np.int64(7), np.float32(0.1)]


@pytest.mark.parametrize(
    ("kind", "config", "variables", "expected"),
    [
        ("SGD", {"momentum": 0.9}, states(100), {"velocity": 100}),
        ("Lion", {}, states(100), {"exp_avg": 100}),
        ("AdamW", {}, states(100, 200), {"exp_avg": 100, "exp_avg_sq": 200}),
        ("Nadam", {}, [*states(100, 200), np.float32(0.5)], {"exp_avg": 100, "exp_avg_sq": 200}),
        (
            "Adam", {"amsgrad": True}, [*states(100, 200), *states(300)],
            {"exp_avg": 100, "exp_avg_sq": 200, "max_exp_avg_sq": 300},
        ),
    ],
)  # fmt: skip
def test_states_of_each_class(tmp_path: Path, kind: str, config: dict, variables: list, expected: dict) -> None:
    write(tmp_path / "a.keras", {"class_name": kind, "config": config}, [*HEAD, *variables])
    found = kept(loaded(tmp_path))
    assert found == {n: {k: v + i for k, v in expected.items()} for i, (n, _) in enumerate(TRAINED)}


def test_muon_keeps_one_array_for_matrices_and_two_for_the_rest(tmp_path: Path) -> None:
    mixed = [
        np.full(s, 10 * k + i, np.float32) for i, (_, s) in enumerate(TRAINED) for k in range(1 if len(s) == 2 else 2)
    ]
    write(tmp_path / "a.keras", {"class_name": "Muon", "config": {}}, [*HEAD, *mixed])
    found = kept(loaded(tmp_path))
    assert found["first/kernel"] == {"momentum": 0}
    assert found["first/bias"] == {"exp_avg": 1, "exp_avg_sq": 11}


def test_averages_and_accumulated_gradients_come_first(tmp_path: Path) -> None:
    config = {"momentum": 0.9, "use_ema": True, "gradient_accumulation_steps": 3}
    write(
        tmp_path / "a.keras", {"class_name": "SGD", "config": config}, [*HEAD, *states(100), *states(200), *states(300)]
    )
    c = loaded(tmp_path)
    assert c.step == 2  # seven batches, three to an update
    assert {n: float(p.read().ravel()[0]) for n, p in c.variants["ema"].items()} == {
        n: 100 + i for i, (n, _) in enumerate(TRAINED)
    }
    assert kept(c)["last/bias"] == {"velocity": 305}
    assert load_run(tmp_path, weights="ema").checkpoints[-1].parameters["first/kernel"].read()[0, 0] == 100


def test_the_optimizer_inside_a_loss_scale_optimizer(tmp_path: Path) -> None:
    inner = {"class_name": "SGD", "config": {"momentum": 0.9, "learning_rate": 0.5}}
    told = {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": inner}}
    write(tmp_path / "a.keras", told, [*HEAD, *states(100)], "optimizer/inner_optimizer/vars")
    c = loaded(tmp_path)
    assert c.step == 7
    assert {s.text for s in c.settings if s.name == "optimizer"} == {"SGD"}
    assert kept(c)["first/kernel"] == {"velocity": 100}


def test_nothing_is_claimed_when_the_variables_do_not_add_up(tmp_path: Path) -> None:
    write(tmp_path / "a.keras", {"class_name": "SGD", "config": {"momentum": 0.9}}, [*HEAD, *states(100)[:-1]])
    assert kept(loaded(tmp_path)) == {}


def test_rates_of_a_schedule_under_accumulation(tmp_path: Path) -> None:
    """Of batches 0, 1, 2, … two make an update: the third update happens at batch 5, the fourth at batch 7."""
    schedule = {
        "class_name": "ExponentialDecay",
        "config": {"initial_learning_rate": 1.0, "decay_steps": 1, "decay_rate": 0.5},
    }
    config = {"learning_rate": schedule, "gradient_accumulation_steps": 2}
    write(tmp_path / "a.keras", {"class_name": "SGD", "config": config}, [np.int64(6), *states(200)])
    c = loaded(tmp_path)
    rates = {s.applies: s.value for s in c.settings if s.name == "learning_rate"}
    assert rates == {"last update": 0.5**5, "next update": 0.5**7}


def test_no_update_has_no_last_rate(tmp_path: Path) -> None:
    schedule = {"class_name": "PiecewiseConstantDecay", "config": {"boundaries": [3], "values": [1.0, 0.1]}}
    write(tmp_path / "a.keras", {"class_name": "SGD", "config": {"learning_rate": schedule}}, [np.int64(0)])
    rates = {s.applies: s.value for s in loaded(tmp_path).settings if s.name == "learning_rate"}
    assert rates == {"next update": 1.0}


def test_attention_in_a_model_of_its_own_class(tmp_path: Path) -> None:
    """No configuration, attributes for names: the states' shapes tell the order, names that of q, k and v."""
    order = [
        ("emb", "embedding", [(11, 8)]),
        ("n1", "layer_normalization", [(8,), (8,)]),
        ("att/query_dense", "query", [(8, 2, 4), (2, 4)]),
        ("att/key_dense", "key", [(8, 2, 4), (2, 4)]),
        ("att/value_dense", "value", [(8, 2, 4), (2, 4)]),
        ("att/output_dense", "attention_output", [(2, 4, 8), (8,)]),
        ("head", "dense", [(8, 3), (3,)]),
    ]
    with h5py.File(tmp_path / "w.weights.h5", "w") as f:
        for path, name, shapes in order:
            node = f.create_group(f"{path}/vars")
            node.attrs["name"] = name
            for i, shape in enumerate(shapes):
                node.create_dataset(str(i), data=np.zeros(shape, np.float32))
        node = f.create_group("optimizer/vars")
        node.attrs["name"] = "sgd"
        shapes = [s for *_, own in order for s in own]
        for i, value in enumerate([*HEAD, *(np.full(s, i, np.float32) for i, s in enumerate(shapes))]):
            node.create_dataset(str(i), data=value)
    c = loaded(tmp_path)
    names = list(c.parameters)
    assert names[:3] == ["embedding/embeddings", "layer_normalization/gamma", "layer_normalization/beta"]
    assert [kept(c)[n]["velocity"] for n in names] == list(range(len(names)))
    layouts = {n: p.layout for n, p in c.parameters.items()}
    assert (layouts["query/kernel"], layouts["attention_output/kernel"]) == ("IOO", "IIO")
