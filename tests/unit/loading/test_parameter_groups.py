"""Numbers of parameter groups back to names."""

import pytest

from smd_analyze.loading.settings.parameter_groups import map_groups
from smd_analyze.loading.tensors.places import Place

SHAPES: dict[str, tuple[int, ...]] = {
    "conv1.weight": (8, 3, 3, 3), "bn1.weight": (8,), "bn1.bias": (8,),
    "conv2.weight": (8, 8, 3, 3), "bn2.weight": (8,), "bn2.bias": (8,), "fc.weight": (10, 8), "fc.bias": (10,),
}  # fmt: skip
PLACES = {n: Place(s, "float32", 0) for n, s in SHAPES.items()}
MATRICES = tuple(n for n, s in SHAPES.items() if len(s) > 1)
VECTORS = tuple(n for n, s in SHAPES.items() if len(s) == 1)


def optimizer(*groups: tuple[str, ...], state: bool = True, **more: object) -> dict[str, object]:
    index, made, states = 0, [], {}
    for names in groups:
        numbers = list(range(index, index + len(names)))
        made.append({"params": numbers, "lr": 0.1, **more})
        if state:
            states |= {
                i: {"momentum_buffer": Place(SHAPES[n], "float32", 4 * i)} for i, n in zip(numbers, names, strict=True)
            }
        index += len(names)
    return {"param_groups": made, "state": states}


def test_one_group_in_order() -> None:
    found = map_groups(optimizer(tuple(SHAPES)), PLACES, True, "f")
    assert found.groups == {"0": tuple(SHAPES)}
    assert found.states["fc.weight"]["momentum_buffer"].shape == (10, 8)


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("split", [(MATRICES, VECTORS), (VECTORS, MATRICES)])
def test_decay_for_matrices_only(split: tuple[tuple[str, ...], tuple[str, ...]], state: bool) -> None:
    assert map_groups(optimizer(*split, state=state), PLACES, True, "f").groups == {"0": split[0], "1": split[1]}


def test_three_groups_as_yolo_makes_them() -> None:
    bias = tuple(n for n in SHAPES if n.endswith("bias"))
    norm = tuple(n for n in VECTORS if n not in bias)
    found = map_groups(optimizer(MATRICES, norm, bias), PLACES, True, "f")
    assert found.groups == {"0": MATRICES, "1": norm, "2": bias}


def test_consecutive_layers() -> None:
    names = tuple(SHAPES)
    found = map_groups(optimizer(names[:3], names[3:6], names[6:]), PLACES, True, "f")
    assert found.groups == {"0": names[:3], "1": names[3:6], "2": names[6:]}


def test_saved_names_win() -> None:
    made = {
        "param_groups": [{"params": [0], "param_names": ["fc.bias"]}, {"params": [1], "param_names": ["fc.weight"]}]
    }
    places = {n: PLACES[n] for n in ("fc.weight", "fc.bias")}
    assert map_groups(made, places, True, "f").groups == {"0": ("fc.bias",), "1": ("fc.weight",)}


def test_a_group_may_have_a_name() -> None:
    made = optimizer(tuple(SHAPES), name="backbone")
    assert set(map_groups(made, PLACES, True, "f").groups) == {"backbone"}


def test_frozen_parameters_are_left_out_if_the_shapes_say_which() -> None:
    found = map_groups(optimizer(("fc.weight", "fc.bias")), PLACES, True, "f")
    assert found.groups == {"0": ("fc.weight", "fc.bias")}


def test_what_fits_in_two_ways_stays_unmapped_and_is_said() -> None:
    found = map_groups(optimizer(("bn1.weight",), state=True), PLACES, True, "f")
    assert found.groups == {}
    assert [f.code for f in found.findings] == ["parameter-groups-unmapped"]


def test_shapes_that_contradict_the_order_stay_unmapped() -> None:
    found = map_groups(optimizer(tuple(reversed(SHAPES))), PLACES, True, "f")
    assert found.groups == {}
    assert found.states == {}


def test_without_order_groups_are_known_and_states_of_a_shape_of_their_own() -> None:
    shuffled = dict(sorted(PLACES.items()))
    found = map_groups(optimizer(MATRICES, VECTORS), shuffled, False, "f")
    assert {g: set(n) for g, n in found.groups.items()} == {"0": set(MATRICES), "1": set(VECTORS)}
    shapes = [p.shape for p in PLACES.values()]
    assert set(found.states) == {n for n, p in PLACES.items() if shapes.count(p.shape) == 1}
