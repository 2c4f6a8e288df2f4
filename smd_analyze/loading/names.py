"""What a tensor's name says: wrappers' prefixes, parameter or buffer, which axis is which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from smd_analyze.loading.dtypes import FLOATING
from smd_analyze.loading.tensors import Place

COUNTERS = frozenset({"n_averaged", "num_updates", "decay", "initted", "step"})  # of AveragedModel, LitEma, ema_pytorch
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")  # DDP, torch.compile, FSDP1
BUFFERS = re.compile(
    r"(^|[./])(running_(mean|var)|moving_(mean|variance)|num_batches_tracked|position_ids|token_type_ids|inv_freq|masked_bias|relative_position_index"
    r"|relative_coords_table|attn_mask|causal_mask|rotary_emb\.\w*freqs?|anchor_points|weight_u|n_averaged|_extra_state|queue(_\w+)?"
    # what quantisers keep beside the packed weights: bitsandbytes, GPTQ, AWQ, compressed-tensors
    r"|(nested_)?absmax|(nested_)?quant_map|SCB|weight_format|qzeros|g_idx|(weight|input|output|activation)_(scale|zero_point)(_inv)?)$"
)
PICKLED = ("pickle", "npy objects")
CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")  # transformers' Conv1D of GPT-2: (in, out)
EMBEDDINGS = re.compile(r"(^|[._])(emb\w*|wte|wpe|\w*embeddings?|tok\w*_emb\w*|pos_emb\w*)\.weight$")


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Saved name → name without the prefixes of wrappers.

    A leading one goes only if all names share it; one in the middle always, unless two names would become one.
    """
    saved = list(names)
    cleaned = [n if n.isprintable() else shown(n) for n in saved]
    while prefix := next((p for p in WRAPPERS if is_shared(p, cleaned)), None):
        cleaned = [n.removeprefix(prefix) for n in cleaned]
    inner = [n.replace("._orig_mod.", ".").replace("._fsdp_wrapped_module.", ".") for n in cleaned]
    if len(set(inner)) == len(inner):
        cleaned = inner
    return dict(zip(saved, cleaned, strict=True))


def is_shared(prefix: str, names: list[str]) -> bool:
    """All names have it, but for the counters of the averages that wrap a model."""
    have = [n.startswith(prefix) or n in COUNTERS for n in names]
    return all(have) and any(n.startswith(prefix) for n in names)


def shown(name: str) -> str:
    """The name with line breaks, terminal codes and the like written out: it is printed in tables."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def is_buffer(name: str, place: Place, names: Mapping[str, Place]) -> bool:
    """Not trained: running statistics, counters, masks, and whatever is no floating point number."""
    if place.dtype not in FLOATING or BUFFERS.search(name):
        return True
    if name.endswith(".attn.bias") and len(place.shape) == 4:  # the causal mask of older GPT-2
        return True
    if name.endswith(".alpha") and name[:-5] + "lora_down.weight" in names:  # kohya's scale of a LoRA
        return True
    # spectral norm saves two vectors beside weight_orig; weight norm's weight_v is a trained matrix
    return name.endswith("weight_v") and len(place.shape) == 1 and name[:-1] + "u" in names


def with_layouts(places: Mapping[str, Place], torch_like: bool = True) -> dict[str, Place]:
    """Axes of torch's layers by name and number of axes; None where the name does not tell, or another library wrote.

    GPT-2's attention projections are (in, out) in transformers and (out, in) elsewhere: c_attn makes three of one, so
    its shape decides for all.
    """
    if not torch_like:
        return dict(places)
    fused = [p.shape for n, p in places.items() if n.endswith("c_attn.weight") and len(p.shape) == 2]
    transposed = bool(fused) and all(s[1] == 3 * s[0] for s in fused)
    return {n: p if p.layout else replace(p, layout=layout_of(n, len(p.shape), transposed)) for n, p in places.items()}


def is_torch_like(form: str, places: Mapping[str, Place]) -> bool:
    """Whether kernels can be (out, in, height, width): not in pickles of other libraries, nor in MLX' safetensors."""
    if form.startswith(("Keras", "TensorFlow")) or (form in PICKLED and not is_named_like_torch(places)):
        return False
    kernels = [p.shape for p in places.values() if len(p.shape) == 4]
    last_in = any(s[1] == s[2] != s[3] for s in kernels) and not any(s[2] == s[3] != s[1] for s in kernels)
    return not (form in ("safetensors", *PICKLED) and last_in)


def is_named_like_torch(places: Mapping[str, Place]) -> bool:
    """Dotted names that end in `.weight`, and no matrix whose bias is as long as its other axis."""
    names = {n for n in places if n.endswith(".weight")}
    if not names or any(n.rpartition(".")[2] in ("kernel", "W", "w") or "/" in n for n in places):
        return False
    pairs = [(places[n].shape, places[n[:-6] + "bias"].shape) for n in names if n[:-6] + "bias" in places]
    return not any(len(w) == 2 and len(b) == 1 and w[1] == b[0] != w[0] for w, b in pairs)


def layout_of(name: str, axes: int, transposed: bool) -> str | None:
    """The axes of one tensor, as torch lays them out."""
    if axes == 1:
        return "O"
    if not name.endswith("weight") and not name.endswith(("weight_orig", "weight_v", "_weight")):
        return None
    if axes == 2:
        if EMBEDDINGS.search(name):
            return None
        return "IO" if transposed and CONV1D.search(name) else "OI"
    return {3: "OIW", 4: "OIHW", 5: "OIDHW"}.get(axes)


def tied(places: Mapping[str, Place]) -> dict[str, str]:
    """Alias → first name, for tensors that are the same elements of the same file."""
    first: dict[tuple[int, int, tuple[int, ...]], str] = {}
    out: dict[str, str] = {}
    for name, place in places.items():
        if place.inline is None and place.pieces is None and place.read is None and place.nbytes:
            key = (place.file, place.start, place.shape)
            if key in first:
                out[name] = first[key]
            else:
                first[key] = name
    return out
