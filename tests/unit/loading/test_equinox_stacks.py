"""Equinox files whose layers were made by filter_vmap: one array holds them all."""

import numpy as np

from smd_analyze.loading.discovery import load_run


def save(path, arrays) -> None:
    with path.open("wb") as file:
        for array in arrays:
            np.save(file, array)


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=s).astype("f4") for s in shapes]


def test_layers_of_filter_vmap_are_cut(tmp_path):
    model = arrays((11, 8), (3, 16, 8), (3, 16), (3, 8, 16), (3, 8), (8, 8, 5), (8, 1), (11, 8), (11,))
    moments = [np.array(4, "i4"), *model, *model]
    save(tmp_path / "step_4.eqx", [*model, *moments])
    run = load_run(tmp_path)
    found = run.checkpoints[0].parameters
    assert {n: t.layout for n, t in found.items()} == {
        "weight_0": "OI", "weight_5": "OIW", "weight_6": "OI", "weight_7": "OI", "vector_8": "O",
        **{f"weight_{k}.{i}": layout for k, layout in ((1, "OI"), (2, "O"), (3, "OI"), (4, "O")) for i in range(3)},
    }  # fmt: skip
    np.testing.assert_array_equal(found["weight_3.2"].read(), model[3][2])
    np.testing.assert_array_equal(run.checkpoints[0].optimizer_state["weight_3.2"]["exp_avg"].read(), model[3][2])
    assert [f.code for f in run.findings] == ["stacked-layers"]


def test_without_biases_three_in_a_row_tell(tmp_path):
    save(tmp_path / "step_1.eqx", arrays((4, 16, 16), (4, 32, 16), (4, 16, 32), (4, 16)))
    found = load_run(tmp_path).checkpoints[0].parameters
    assert [n for n in found if n.startswith("weight_0")] == [f"weight_0.{i}" for i in range(4)]
    assert len(found) == 16


def test_convolutions_stay_whole(tmp_path):
    save(tmp_path / "step_1.eqx", arrays((8, 8, 3), (8, 8), (8,), (16, 8, 5), (16, 1), (16, 16, 3), (16, 1)))
    run = load_run(tmp_path)
    assert len(run.checkpoints[0].parameters) == 7
    assert run.findings == ()
