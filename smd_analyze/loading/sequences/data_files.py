"""Arrays that lie beside checkpoints and are none: data sets, features, predictions. They join no sequence."""

from __future__ import annotations

import re

from smd_analyze.loading.sequences.opened import Opened

MANY = 64  # rows from which arrays of one length look like samples
WORDS = re.compile(
    r"(?<![a-z])(x|y|xs|ys|data|datas?ets?|samples?|images?|labels?|targets?|features?|feats?|embeddings?|embs?|logits|preds?"
    r"|predictions?|outputs?|activations?|acts?|scores|train|test|val|valid|ids|index|indices|mask|masks|batch|splits?|shards?"
    r"|tokens|corpus|mean|std|stats|buffer|replay|cache|results?)(?![a-z])",
    re.IGNORECASE,
)


def is_data(one: Opened) -> bool:
    """Few arrays, no optimizer, no step inside, and names of data: `features_1.npy`, `x_train`, `train_data.npz`.

    Names of layers (a dot or a slash, or "weight" in them) are weights' whatever the file is called.
    """
    reading = one.reading
    arrays = {**reading.parameters, **reading.buffers}
    if one.unit.folder or one.facts or reading.optimizer_state or reading.settings or len(arrays) > 12:
        return False
    if any(re.search(r"[./]|weight|kernel|bias|gamma|\bw\d?\b", name, re.IGNORECASE) for name in reading.parameters):
        return False
    base = re.sub(r"[_\d]+", " ", one.unit.name.rpartition("/")[2].partition(".")[0])
    named = WORDS.search(base) or all(WORDS.search(re.sub(r"[_\d]+", " ", name)) for name in arrays)
    lengths = {p.shape[0] for p in arrays.values() if p.shape}
    alone = len(arrays) == 1 and not any(name for name in arrays if name.strip("_0123456789"))
    return bool(named) or alone or (len(lengths) == 1 and len(arrays) > 1 and lengths.pop() >= MANY)
