"""Other copies of the weights (averaged, float32 masters) under the names of the live ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smd_analyze.loading.roles.names import clean_names, is_buffer
from smd_analyze.loading.tensors.places import Place

PREFIXES = ("", "module.", "model.", "ema_model.", "online_model.", "shadow.", "state_dict.", "state_dict_ema.",
            "shadow_params.", "params.")  # fmt: skip
MASTERS = ("master_param", "master_params", "master_weight", "master_weights", "fp32_param", "master")


def find_twins(copy: Mapping[str, Place], parameters: Mapping[str, Place]) -> dict[str, Place]:
    """The tensors of another copy under the parameters' names: those that agree in name and shape, prefixes aside."""
    names = clean_names(copy)
    cleaned = {names[n]: p for n, p in copy.items()}
    for prefix in PREFIXES:
        for own in ("", "module.", "model.", "online_model."):
            found = {
                n: p
                for n, place in parameters.items()
                if (n.startswith(own) or not own)
                and (p := cleaned.get(prefix + n.removeprefix(own))) is not None
                and p.shape == place.shape
            }
            if found:
                return found
    return {}


def by_order(
    copy: Mapping[str, Place], live: Mapping[str, Place], groups: Mapping[str, Sequence[str]], ordered: bool
) -> dict[str, Place]:
    """A copy that is a list: in the order of parameters() (torch_ema's shadow_params), or one list per parameter group
    (apex' fp32_from_fp16), if every shape agrees; {} otherwise."""
    if not ordered:
        return {}
    parameters = [n for n, p in live.items() if not is_buffer(n, p, live)]
    grouped = [n for names in groups.values() for n in names]
    numbered = [p for n, p in copy.items() if n.rpartition(".")[2].isdigit()]
    deep = all(n.split(".")[-2:-1] and n.split(".")[-2].isdigit() for n in copy)
    for names in (grouped, parameters) if deep else (parameters, list(live)):
        if len(numbered) == len(names) and all(p.shape == live[n].shape for n, p in zip(names, numbered, strict=True)):
            return {n: p for n, p in zip(names, numbered, strict=True) if n in parameters}
    return {}


def masters_of(states: Mapping[str, Mapping[str, Place]], parameters: Mapping[str, Place]) -> dict[str, Place]:
    """float32 masters that an optimizer keeps in its state of each parameter."""
    key = next((k for k in MASTERS if any(k in s for s in states.values())), None)
    if key is None:
        return {}
    return {n: s[key] for n, s in states.items() if key in s and s[key].shape == parameters[n].shape}
