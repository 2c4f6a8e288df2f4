"""In which order a model registered its parameters, as far as their names tell: what torch's optimizers number by.

safetensors sorts names, so the order of the file is lost. Certain are: numbered modules (ModuleList, Sequential) stand
in the order of their numbers, a layer's weight stands before its bias, LoRA's A before its B. What stands beside each
other otherwise is known for models of known libraries only (registration_orders.txt: read off their modules).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files

EVERYWHERE = (("weight", "bias"), ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"))
ANY = "any"  # a model of a known library, but not known which: what all those that it can be have in common is certain
PEFT = "base_model.model."
Beside = tuple[str, tuple[str, ...]]  # (module that holds them, what stands beside each other)


@cache
def families() -> dict[str, dict[str, tuple[tuple[str, ...], ...]]]:
    """Family (config.json's model_type or _class_name) → module → what stands in it, in the order of registration."""
    found: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {}
    text = files("smd_analyze.loading.roles").joinpath("registration_orders.txt").read_text("utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            what, _, where = line.partition(":")
            module, _, words = what.partition(">")
            for family in where.split():
                known = found.setdefault(family, {})
                known[module.strip()] = (*known.get(module.strip(), ()), tuple(words.split()))
    return found


@lru_cache(maxsize=64)
def positions(names: tuple[str, ...], every: tuple[str, ...], family: str = "") -> tuple[int | None, ...]:
    """For each of `names` its place among them in the order of registration, None where that is not certain.

    `every` are the names of all parameters of the model: a module's neighbours tell which kind it is. `family` is one
    of families(), ANY, or "" for a model of unknown origin.
    """
    prefix = PEFT if all(n.startswith(PEFT) for n in every) else ""
    beside = siblings(tuple(n.removeprefix(prefix) for n in every))
    known = tuple(f for f in families() if explains(f, beside)) if family == ANY else (family,) * (family in families())
    out: dict[str, int] = {}

    def place(group: Sequence[tuple[str, ...]], depth: int, before: int | None) -> None:
        if len(group) == 1:
            if before is not None:
                out[".".join(group[0])] = before
            return
        parts: dict[str, list[tuple[str, ...]]] = {}
        for words in group:
            parts.setdefault(words[depth] if depth < len(words) else "", []).append(words)
        path = group[0][:depth]
        ranked = ranking(tuple(parts), (holder(path), beside.get(path, ())), known)
        for word, part in parts.items():
            start = None
            if ranked is not None and before is not None:
                start = before + sum(len(parts[other]) for other in parts if ranked[other] < ranked[word])
            place(part, depth + 1, start)

    if names:
        place([tuple(n.removeprefix(prefix).split(".")) for n in names], 0, 0)
    return tuple(out.get(n.removeprefix(prefix)) for n in names)


@lru_cache(maxsize=8)
def siblings(names: tuple[str, ...]) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Module → what stands right below it."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for name in names:
        words = tuple(name.split("."))
        for depth in range(len(words)):
            found.setdefault(words[:depth], {})[words[depth]] = None
    return {module: tuple(below) for module, below in found.items()}


def holder(path: tuple[str, ...]) -> str:
    """The name of a module by which its kind is known: numbers in lists of modules are passed over."""
    return next((w for w in reversed(path) if not w.isdigit()), "")


def explains(family: str, beside: Mapping[tuple[str, ...], tuple[str, ...]]) -> bool:
    """All modules are such as models of this family have."""
    known = families()[family]
    groups = {(holder(path), words) for path, words in beside.items() if not all(w.isdigit() for w in words)}
    return all(
        any(set(words) <= set(chain) for chain in (*EVERYWHERE, *known.get(module, ()))) for module, words in groups
    )


@lru_cache(maxsize=4096)
def ranking(words: tuple[str, ...], beside: Beside, known: tuple[str, ...]) -> Mapping[str, int] | None:
    """The order of modules that stand beside each other; None if it is not certain."""
    if len(words) == 1:
        return {words[0]: 0}
    if all(w.isdigit() for w in words):
        return {w: int(w) for w in words}
    module, wanted = beside[0], {*beside[1], *words}
    fitting = [c for c in EVERYWHERE if wanted <= set(c)]
    for family in known:
        fitting += [c for c in families()[family].get(module, ()) if wanted <= set(c)]
    orders = {tuple(w for w in c if w in words) for c in fitting}
    return {w: i for i, w in enumerate(orders.pop())} if len(orders) == 1 else None
