"""What a tensor's name says: wrappers' prefixes, parameter or buffer, which axis is which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from smd_analyze.loading.dtypes import FLOATING
from smd_analyze.loading.tensors import Place

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")  # DDP, torch.compile, FSDP1
AVERAGES = ("ema.", "ema_model.", "model_ema.", "ema_net.", "averaged_model.")
BUFFERS = re.compile(
    r"(^|[./])(running_(mean|var)|moving_(mean|variance)|num_batches_tracked|position_ids|token_type_ids|inv_freq|masked_bias|relative_position_index"
    r"|relative_coords_table|attn_mask|causal_mask|rotary_emb\.\w*freqs?|anchor_points|weight_u|n_averaged|_extra_state)$"
)
CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")  # transformers' Conv1D of GPT-2: (in, out)
EMBEDDINGS = re.compile(r"(^|[._])(emb\w*|wte|wpe|\w*embeddings?|tok\w*_emb\w*|pos_emb\w*)\.weight$")


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Saved name → name without the prefixes of wrappers.

    A leading one goes only if all names share it; one in the middle always, unless two names would become one.
    """
    saved = list(names)
    cleaned = [n if n.isprintable() else shown(n) for n in saved]
    while prefix := next((p for p in WRAPPERS if cleaned and all(n.startswith(p) for n in cleaned)), None):
        cleaned = [n[len(prefix) :] for n in cleaned]
    inner = [n.replace("._orig_mod.", ".").replace("._fsdp_wrapped_module.", ".") for n in cleaned]
    if len(set(inner)) == len(inner):
        cleaned = inner
    return dict(zip(saved, cleaned, strict=True))


def shown(name: str) -> str:
    """The name with line breaks, terminal codes and the like written out: it is printed in tables."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def split_averages(places: Mapping[str, Place]) -> tuple[dict[str, Place], dict[str, Place]]:
    """(live, averaged): tensors under an average's prefix that have a twin without it are the averaged copy."""
    for prefix in AVERAGES:
        averaged = {n[len(prefix) :]: p for n, p in places.items() if n.startswith(prefix)}
        live = {n: p for n, p in places.items() if not n.startswith(prefix)}
        dotless = {n.replace(".", ""): n for n in live}  # latent diffusion's LitEma drops the dots of its names
        for before in ("", "model.", "net.", "module."):
            twins = {before + n: p for n, p in averaged.items() if before + n in live}
            if len(dotless) == len(live):
                flat = ((dotless.get((before + n).replace(".", "")), p) for n, p in averaged.items())
                twins = twins or {n: p for n, p in flat if n is not None}
            if twins and len(twins) >= len(averaged) // 2 and all(live[n].shape == p.shape for n, p in twins.items()):
                return live, twins
    return dict(places), {}


def is_buffer(name: str, place: Place, names: Mapping[str, Place]) -> bool:
    """Not trained: running statistics, counters, masks, and whatever is no floating point number."""
    if place.dtype not in FLOATING or BUFFERS.search(name):
        return True
    if name.endswith(".attn.bias") and len(place.shape) == 4:  # the causal mask of older GPT-2
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
    if form == "pickle" or form.startswith(("Keras", "TensorFlow")):
        return False
    kernels = [p.shape for p in places.values() if len(p.shape) == 4]
    last_in = any(s[1] == s[2] != s[3] for s in kernels) and not any(s[2] == s[3] != s[1] for s in kernels)
    return not (form == "safetensors" and last_in)


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
        if place.inline is None and place.pieces is None and place.nbytes:
            key = (place.file, place.start, place.shape)
            if key in first:
                out[name] = first[key]
            else:
                first[key] = name
    return out
