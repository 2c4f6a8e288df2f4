"""The order in which a model registered its parameters, as far as names tell: certain or nothing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.roles.registration import ANY, families, positions


def test_numbers_count_and_a_weight_stands_before_its_bias() -> None:
    names = ("h.10.fc.weight", "h.2.fc.bias", "h.2.fc.weight")
    assert positions(names, names) == (2, 1, 0)


def test_modules_of_unknown_models_are_in_no_certain_order() -> None:
    names = ("h.0.b.weight", "h.0.a.weight", "h.1.a.weight", "h.1.b.weight")
    assert positions(names, names) == (None, None, None, None)
    # alone in its layer, each is certain
    assert positions(names[1:3], names) == (0, 1)


def block(attention: tuple[str, ...]) -> tuple[str, ...]:
    inside = [f"self_attn.{name}" for name in attention] + ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    return tuple(f"model.layers.{i}.{name}.weight" for i in range(2) for name in inside)


def test_a_known_family_orders_its_modules() -> None:
    names = block(("q_proj", "k_proj", "v_proj", "o_proj"))
    assert positions(tuple(reversed(names)), names, "llama") == tuple(reversed(range(len(names))))
    assert positions(names, names, "")[:4] == (None,) * 4


def test_a_module_that_the_family_does_not_have_makes_its_place_uncertain() -> None:
    names = block(("q_proj", "k_proj", "v_proj", "my_proj"))
    assert positions(names[:2], names, "llama") == (None, None)


def test_families_differ_and_only_what_all_that_fit_have_in_common_is_certain() -> None:
    opt = ("model.decoder.layers.0.self_attn.v_proj.bias", "model.decoder.layers.0.self_attn.q_proj.bias")
    assert positions(opt, opt, "opt") == (0, 1)
    adapter = "base_model.model.{}self_attn.{}_proj.lora_A.weight"
    llama = tuple(adapter.format("model.layers.0.", n) for n in "vq")
    assert positions(llama, llama, ANY) == (1, 0)
    either = tuple(adapter.format("", n) for n in "vq")  # nothing tells which model
    assert positions(either, either, ANY) == (None, None)


def test_the_table_is_sound() -> None:
    known = families()
    assert {"llama", "bert", "gpt2", "UNet2DConditionModel"} <= known.keys()
    assert all(len(set(words)) == len(words) > 0 for f in known.values() for chains in f.values() for words in chains)


@pytest.mark.parametrize("truth", ["qkvo", "kvqo"])
def test_an_order_that_the_shapes_contradict_is_not_used(tmp_path: Path, truth: str) -> None:
    """Grouped queries: k and v are smaller. A llama whose modules stand otherwise shows it by its states' shapes."""
    shapes = {n: (8, 8) if n in "qo" else (4, 8) for n in "qkvo"}
    registered = [f"model.layers.0.self_attn.{n}_proj.weight" for n in truth]
    weights = {name: torch.randn(shapes[n]) for name, n in zip(registered, truth, strict=True)}
    state = {i: {"momentum_buffer": torch.full_like(weights[n], i)} for i, n in enumerate(registered)}
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    torch.save({"state": state, "param_groups": [{"params": [0, 1, 2, 3], "lr": 0.1}]}, folder / "optimizer.pt")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    found = load_run(tmp_path).checkpoints[0].optimizer_state
    assert set(found) == (set(registered) if truth == "qkvo" else set())
    for name, own in found.items():
        assert own["momentum_buffer"].read().flat[0] == registered.index(name)
