"""Transformers by their names: query and key norms, norms after a sublayer, and why the rest is not invariant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from smd_analyze.invariance.modules import QK_NORM_WORD, Module, input_size, output_axis, role
from smd_analyze.invariance.verdicts import Verdict

ATTENTION_WORD = re.compile(r"attn|attention|^mha$", re.IGNORECASE)
PROJECTIONS = {
    "q": ("q_proj", "wq", "to_q", "q", "query", "query_proj", "q_lin", "c_q", "linear_q"),
    "k": ("k_proj", "wk", "to_k", "k", "key", "key_proj", "k_lin", "c_k", "linear_k"),
}
OUTPUTS = ("o_proj", "out_proj", "wo", "c_proj")
AFTER_SUBLAYER = (  # names of the norms that stand after attention and after the MLP, before the residual sum
    (
        {"post_attention_layernorm", "post_feedforward_layernorm"},
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ),
    ({"post_self_attn_layernorm", "post_mlp_layernorm"}, "post_self_attn_layernorm", "post_mlp_layernorm"),
)
STREAM = "no normalization between it and the residual stream or an activation: the norms of the block stand elsewhere"


def attention_verdicts(modules: Sequence[Module], ordered: bool) -> Iterator[Verdict]:
    """Invariant weights of transformer layers. `ordered` is not used: names alone tell."""
    children: dict[str, dict[str, Module]] = {}
    for module in modules:
        children.setdefault(module.parent, {})[module.leaf] = module
    blocks = _blocks(modules)
    for siblings in children.values():
        yield from _query_and_key(siblings)
        yield from _latent(siblings)
    for block in blocks:
        yield from _sandwich(block, children)


def residual_verdicts(modules: Sequence[Module], ordered: bool) -> Iterator[Verdict]:
    """Why no other weight of a transformer layer is invariant. `ordered` is not used."""
    blocks = _blocks(modules)
    for module in modules:
        if module.weight is not None and any(_inside(module.path, b) for b in blocks):
            yield from _residual(module)
        for leaf in ("in_proj_weight", "in_proj_bias"):
            if leaf in module.tensors:
                name, tensor = module.names[leaf], module.tensors[leaf]
                yield Verdict(name, role(name, tensor), "not invariant", STREAM, "guessed", units=tensor.shape[0])


def _blocks(modules: Sequence[Module]) -> list[str]:
    """Paths of the modules that hold an attention module and a normalization beside it: transformer layers.

    A normalization counts as beside it at the same depth or inside the attention module (BERT's `attention.output`).
    """
    paths = {m.path for m in modules}
    parents: set[str] = set()
    for path in paths:
        words = re.split(r"[./]", path)
        for depth in range(1, len(words)):
            if ATTENTION_WORD.search(words[depth - 1]):
                parents.add(path[: len(".".join(words[: depth - 1]))])
                break
    norms = [m for m in modules if m.norm_size and not m.statistics]
    return [p for p in parents if p and any(_inside(m.path, p) for m in norms)]


def _inside(path: str, block: str) -> bool:
    return path.startswith(block) and path[len(block) : len(block) + 1] in (".", "/")


def _query_and_key(siblings: dict[str, Module]) -> Iterator[Verdict]:
    """Query and key projections that a norm per head, or over all heads, follows: both norms must be there."""
    norms: dict[str, Module] = {}
    for leaf, module in siblings.items():
        match = QK_NORM_WORD.match(leaf)
        if match and module.tensors:
            norms[(match["a"] or match["b"]).lower()] = module
    if set(norms) != {"q", "k"}:
        return
    for letter, norm in norms.items():
        projection = next((siblings[p] for p in PROJECTIONS[letter] if p in siblings), None)
        if projection is None or projection.weight is None or len(projection.weight.shape) != 2:
            continue
        shape = next(iter(norm.tensors.values())).shape
        axis = output_axis(projection.weight)
        rows, size = projection.weight.shape[axis], shape[-1]
        if size == 0 or rows % size or (len(shape) == 2 and shape[0] * size != rows):
            continue
        if letter == "q" and _gated(siblings, rows):
            continue
        heads = rows // size
        where = f"{norm.path} normalizes " + ("each head" if heads > 1 else "all heads together")
        yield from _scaled(projection, axis, heads, where)
    yield from _fused(siblings, norms)


def _gated(siblings: dict[str, Module], rows: int) -> bool:
    """More query rows than the output projection takes: a gate is fused into the query projection."""
    weights = [siblings[n].weight for n in OUTPUTS if n in siblings]
    return any(w is not None and input_size(w) != rows for w in weights)


def _scaled(module: Module, axis: int, blocks: int, where: str) -> Iterator[Verdict]:
    """Invariant alone without a bias; with one, weight and bias only together."""
    weight = module.weight
    if weight is None:
        return
    granularity = "block" if blocks > 1 else "whole"
    if not module.bias_name:
        yield Verdict(module.weight_name, "linear", "invariant", where, "guessed", granularity, axis, units=blocks)
        return
    reason = f"{where}; the bias must be scaled with the weight"
    status = "jointly invariant"
    for name, kind, along in ((module.weight_name, "linear", axis), (module.bias_name, "bias", 0)):
        joint = f"{module.path}+bias"
        yield Verdict(name, kind, status, reason, "guessed", granularity, along, units=blocks, joint=joint)


def _fused(siblings: dict[str, Module], norms: dict[str, Module]) -> Iterator[Verdict]:
    """A fused `qkv` projection in three equal parts, without bias: query and key parts invariant per head."""
    qkv = siblings.get("qkv")
    if qkv is None or qkv.weight is None or qkv.bias_name or qkv.weight.shape[0] != 3 * qkv.weight.shape[1]:
        return
    third = qkv.weight.shape[1]
    for number, letter in enumerate("qkv"):
        part = (number * third, (number + 1) * third)
        size = next(iter(norms[letter].tensors.values())).shape[-1] if letter in norms else 0
        if size and third % size == 0:
            heads = third // size
            reason = f"{norms[letter].path} normalizes " + ("each head" if heads > 1 else "all heads together")
            granularity = "block" if heads > 1 else "whole"
            yield Verdict(qkv.weight_name, "linear", "invariant", reason, "guessed", granularity, 0, part, heads)
        else:
            yield Verdict(qkv.weight_name, "linear", "not invariant", STREAM, "guessed", "", 0, part, third)


def _latent(siblings: dict[str, Module]) -> Iterator[Verdict]:
    """Multi-head latent attention: the query's down projection goes straight into `q_a_layernorm`."""
    down, norm = siblings.get("q_a_proj"), siblings.get("q_a_layernorm")
    if down and norm and down.weight is not None and norm.norm_size == down.weight.shape[output_axis(down.weight)]:
        yield from _scaled(down, output_axis(down.weight), 1, f"{norm.path} normalizes its output")


def _sandwich(block: str, children: dict[str, dict[str, Module]]) -> Iterator[Verdict]:
    """Layers whose sublayers are normalized before the residual sum (Gemma 2 and 3, OLMo 2, GLM-4).

    The norm divides out what is linear on the way to it: the output projection, and, where no bias comes after, the
    value projection and the *up* half of a gated MLP; never the gate.
    """
    inner = children.get(block, {})
    if any("laurel" in leaf or "altup" in leaf for leaf in inner):
        return
    for needed, after_attention, after_mlp in AFTER_SUBLAYER:
        if needed <= set(inner) and all(inner[n].norm_size for n in needed):
            attention = next((children[p] for p in (f"{block}.self_attn", f"{block}.attention") if p in children), {})
            yield from _linear_path(attention.get("o_proj"), attention.get("v_proj"), f"{block}.{after_attention}")
            mlp = children.get(f"{block}.mlp", {})
            up = mlp.get("up_proj") if "gate_proj" in mlp else None
            yield from _linear_path(mlp.get("down_proj"), up, f"{block}.{after_mlp}")
            return


def _linear_path(last: Module | None, first: Module | None, norm: str) -> Iterator[Verdict]:
    if last is None or last.weight is None:
        return
    yield from _scaled(last, output_axis(last.weight), 1, f"{norm} normalizes its output before the residual sum")
    if first is not None and first.weight is not None and not last.bias_name and not first.bias_name:
        reason = f"it reaches {norm} through {last.leaf} only by products and sums"
        yield from _scaled(first, output_axis(first.weight), 1, reason)


def _residual(module: Module) -> Iterator[Verdict]:
    """Everything else in a transformer block but convolutions: nobody knows what follows those."""
    weight = module.weight
    kind = role(module.weight_name, weight) if weight is not None else ""
    if weight is None or kind == "conv":
        return
    axis = output_axis(weight)
    yield Verdict(module.weight_name, kind, "not invariant", STREAM, "guessed", "", axis, units=weight.shape[axis])
