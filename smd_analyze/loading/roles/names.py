"""What a tensor's name says: wrappers' prefixes, parameter or buffer, which axis is which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place

# of AveragedModel, LitEma, ema_pytorch, mmengine
COUNTERS = frozenset({"n_averaged", "num_updates", "decay", "initted", "step", "steps"})
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")  # DDP, torch.compile, FSDP1
BUFFERS = re.compile(
    r"(^|[./])(running_(mean|var)|moving_(mean|variance)|num_batches_tracked|position_ids|token_type_ids|inv_freq|masked_bias|relative_position_index"
    r"|relative_coords_table|attn_mask|causal_mask|rotary_emb\.\w*freqs?|anchor_points|weight_u|parametrizations\.\w+\.\d+\._[uv]|n_averaged|_extra_state|queue(_\w+)?"
    # what quantisers keep beside the packed weights: bitsandbytes, GPTQ, AWQ, compressed-tensors
    r"|(nested_)?absmax|(nested_)?quant_map|SCB|weight_format|qzeros|g_idx|(weight|input|output|activation)_(scale|zero_point)(_inv)?)$"
)
STATED = frozenset({"lr", "learning_rate", "weight_decay", "momentum", "beta1", "beta2"})  # one number beside weights
PICKLED = ("pickle", "npy objects")
CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")  # transformers' Conv1D of GPT-2: (in, out)
RECURRENT = re.compile(r"(^|\.)weight_(ih|hh|hr)(_l\d+(_reverse)?)?$")  # LSTM, GRU and their cells
PARAMETRIZED = re.compile(r"\.parametrizations\.weight\.original1?$")
TRANSPOSED = re.compile(r"deconv|conv_?transposed?|transposed?_?conv|tconv", re.IGNORECASE)
NUMBERED = re.compile(r"(.*?)(\d+)\.weight")
HEADS = re.compile(r"(^|[._])(\w*head|\w*proj(ection)?|decoder|output(_layer)?|fc_out|embed_out|generator)\.weight$")
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


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which 9 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,15})", name)]


def is_buffer(name: str, place: Place, names: Mapping[str, Place]) -> bool:
    """Not trained: running statistics, counters, masks, and whatever is no floating point number."""
    if place.dtype not in FLOATING or BUFFERS.search(name):
        return True
    if not place.shape and name in STATED:
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
    out: dict[str, Place] = {}
    for name, place in places.items():
        layout = place.layout or layout_of(name, len(place.shape), transposed)
        if not place.layout and layout in ("OIW", "OIHW", "OIDHW") and is_transposed(name, places):
            layout = "IO" + layout[2:]
        out[name] = replace(place, layout=layout)
    return out


def is_transposed(name: str, places: Mapping[str, Place]) -> bool:
    """A transposed convolution, (in, out / groups, …): its bias, or the norm after it in a Sequential, is as long as a
    multiple of its second axis and not as its first; or, where these do not tell, its name says so."""
    stem, shape = name.rpartition("weight")[0], places[name].shape
    beside = [places.get(stem + "bias")]
    if found := NUMBERED.fullmatch(name):
        beside.append(places.get(f"{found[1]}{int(found[2]) + 1}.weight"))
    for vector in beside:
        if vector is not None and len(vector.shape) == 1 and vector.shape[0] not in (1, shape[0]):  # PReLU has one
            return shape[1] > 0 and vector.shape[0] % shape[1] == 0
    if any(vector is not None and vector.shape == shape[:1] != shape[1:2] for vector in beside):
        return False
    return TRANSPOSED.search(stem) is not None


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
    if not name.endswith(("weight", "weight_orig", "weight_v")) and not (
        RECURRENT.search(name) or PARAMETRIZED.search(name)
    ):
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
