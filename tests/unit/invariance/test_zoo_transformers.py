"""Architectures of transformers, from small configurations: known verdicts, all confirmed by their numbers."""

from fnmatch import fnmatchcase

import pytest
import torch

from smd_analyze.invariance.graph import _traced, analyse
from smd_analyze.invariance.verifying import verify

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 6,
}  # fmt: skip
DECODER = SIZES | {
    "num_key_value_heads": 2, "head_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {
    "vocab_size": 24,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 6,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
UNIT, BLOCK, WHOLE, DEAD = ("invariant", "unit"), ("invariant", "block"), ("invariant", "whole"), ("dead", "")
KNOWN = {  # every invariant or dead parameter; all others are neither
    "Qwen3": ("Qwen3ForCausalLM", DECODER, {"*.q_proj.weight": BLOCK, "*.k_proj.weight": BLOCK}),
    "Gemma3Text": (
        "Gemma3ForCausalLM", DECODER | {"query_pre_attn_scalar": 4, "sliding_window": 4},
        {"*.q_proj.weight": BLOCK, "*.k_proj.weight": BLOCK, "*.v_proj.weight": WHOLE, "*.o_proj.weight": WHOLE,
         "*.up_proj.weight": WHOLE, "*.down_proj.weight": WHOLE},
    ),
    "Olmo2": (
        "Olmo2ForCausalLM", {k: v for k, v in DECODER.items() if k != "head_dim"},
        {f"*.{n}_proj.weight": WHOLE for n in ("q", "k", "v", "o", "up", "down")},
    ),
    "Llama": ("LlamaForCausalLM", DECODER, {}),
    "GPT2": ("GPT2LMHeadModel", GPT2, {"*.c_attn.bias[16:32]": DEAD}),
    "Bert": ("BertForSequenceClassification", SIZES, {"*.key.bias": DEAD}),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_architecture(name):
    kind, settings, known = KNOWN[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**settings))
    graph, used = _traced(model, None, name)
    verdicts, _ = analyse(graph)
    after, findings = verify(model, used, {}, verdicts, name)
    assert [f.code for f in findings] == ["numeric-check"]
    for parameter, rows in after.items():
        for row in rows:
            where = f"{parameter}[{row.part[0]}:{row.part[1]}]" if row.part else parameter
            expected = next(
                (v for pattern, v in known.items() if fnmatchcase(where.replace("[", "<"), pattern.replace("[", "<"))),
                None,
            )
            found = (row.status, row.granularity) if row.status in ("invariant", "dead") else None
            assert found == expected, row
            assert row.evidence in ("proved and confirmed", "refuted"), row
