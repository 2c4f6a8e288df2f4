"""Real architectures for the confusion table: small configurations of transformers' models; torchvision's and timm's
where these libraries are installed. Every entry builds (model, positional inputs or None to have them guessed)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

Entry = Callable[[], tuple[nn.Module, Any]]

TEXT: dict[str, Any] = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 6,
}  # fmt: skip
DECODER = TEXT | {
    "num_key_value_heads": 2, "head_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NO_HEAD = {k: v for k, v in DECODER.items() if k != "head_dim"}
PATCHES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8,
    "patch_size": 4, "num_labels": 3,
}  # fmt: skip
STAGES: dict[str, Any] = {
    "hidden_sizes": [6, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 4, "num_labels": 3, "image_size": 32,
}  # fmt: skip
WINDOWS: dict[str, Any] = {
    "image_size": 16, "patch_size": 2, "embed_dim": 8, "num_heads": [2, 4], "window_size": 4, "num_labels": 3,
}  # fmt: skip

CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", TEXT | {"num_labels": 3}),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig", {
        "vocab_size": 24, "dim": 16, "hidden_dim": 20, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 6}),
    "albert": ("AlbertForSequenceClassification", "AlbertConfig", TEXT | {"embedding_size": 6}),
    "deberta_v2": ("DebertaV2ForSequenceClassification", "DebertaV2Config", TEXT | {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4,
        "max_relative_positions": 8, "type_vocab_size": 1}),
    "modernbert": ("ModernBertForSequenceClassification", "ModernBertConfig", TEXT | {
        "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 3,
        "sep_token_id": 4}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {
        "vocab_size": 24, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 6, "bos_token_id": 1,
        "eos_token_id": 2}),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT | {"rotary_pct": 0.5}),
    "opt": ("OPTForCausalLM", "OPTConfig", {
        "vocab_size": 24, "hidden_size": 16, "ffn_dim": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 32, "word_embed_proj_dim": 16}),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"vocab_size": 24, "hidden_size": 16, "n_layer": 2, "n_head": 4}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", NO_HEAD),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", DECODER),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", DECODER | {"query_pre_attn_scalar": 4, "sliding_window": 4}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", DECODER | {"query_pre_attn_scalar": 4, "sliding_window": 4}),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", NO_HEAD),
    "olmo3": ("Olmo3ForCausalLM", "Olmo3Config", NO_HEAD),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", NO_HEAD),
    "cohere": ("CohereForCausalLM", "CohereConfig", NO_HEAD | {"use_qk_norm": True}),
    "glm4": ("Glm4ForCausalLM", "Glm4Config", DECODER),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", NO_HEAD | {
        "qk_layernorm": True, "use_parallel_residual": True}),
    "diffllama": ("DiffLlamaForCausalLM", "DiffLlamaConfig", NO_HEAD),
    "nanochat": ("NanoChatForCausalLM", "NanoChatConfig", DECODER),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", DECODER | {
        "num_local_experts": 3, "num_experts_per_tok": 2, "experts_implementation": "eager"}),
    "qwen3_next": ("Qwen3NextForCausalLM", "Qwen3NextConfig", DECODER | {
        "num_experts": 0, "linear_key_head_dim": 4, "linear_value_head_dim": 4, "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "layer_types": ["linear_attention", "full_attention"],
        "mlp_only_layers": [0, 1]}),
    "mamba": ("MambaForCausalLM", "MambaConfig", {
        "vocab_size": 24, "hidden_size": 8, "state_size": 4, "num_hidden_layers": 2, "time_step_rank": 3}),
    "t5": ("T5ForConditionalGeneration", "T5Config", {
        "vocab_size": 24, "d_model": 16, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0, "relative_attention_num_buckets": 4, "relative_attention_max_distance": 4}),
    "vit": ("ViTForImageClassification", "ViTConfig", PATCHES),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", PATCHES | {"mlp_ratio": 2, "layerscale_value": 1.0}),
    "swin": ("SwinForImageClassification", "SwinConfig", WINDOWS | {"depths": [2, 1]}),
    "swinv2": ("Swinv2ForImageClassification", "Swinv2Config", WINDOWS | {"depths": [1, 1]}),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", STAGES),
    "convnextv2": ("ConvNextV2ForImageClassification", "ConvNextV2Config", STAGES),
    "poolformer": ("PoolFormerForImageClassification", "PoolFormerConfig", {
        "hidden_sizes": [4, 6, 6, 8], "depths": [1, 1, 1, 1], "num_labels": 3, "image_size": 64}),
    "regnet": ("RegNetForImageClassification", "RegNetConfig", {
        "embedding_size": 6, "hidden_sizes": [8, 12, 12, 16], "depths": [1, 1, 1, 1], "groups_width": 4,
        "num_labels": 3, "image_size": 32}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "MobileNetV2Config", {
        "depth_multiplier": 0.1, "depth_divisible_by": 2, "min_depth": 4, "num_labels": 3, "image_size": 64}),
    "levit": ("LevitForImageClassification", "LevitConfig", {
        "image_size": 64, "hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
        "key_dim": [4, 4, 4], "mlp_ratio": [2, 2, 2], "attention_ratio": [2, 2, 2], "num_labels": 3}),
}  # fmt: skip
SIDE = {"regnet": 32, "convnext": 32, "convnextv2": 32, "poolformer": 64}  # whose configuration knows no image size


def _transformer(name: str) -> Entry:
    def build() -> tuple[nn.Module, Any]:
        import transformers

        kind, config, settings = CONFIGS[name]
        model = getattr(transformers, kind)(getattr(transformers, config)(**settings))
        return model, (torch.zeros(3, 3, SIDE[name], SIDE[name]),) if name in SIDE else None

    return build


def _timm(name: str, side: int, **settings: Any) -> Entry:
    def build() -> tuple[nn.Module, Any]:
        import timm

        return timm.create_model(name, num_classes=3, **settings), (torch.zeros(3, 3, side, side),)

    return build


def _torchvision(name: str, side: int) -> Entry:
    def build() -> tuple[nn.Module, Any]:
        import torchvision

        return getattr(torchvision.models, name)(num_classes=3), (torch.zeros(3, 3, side, side),)

    return build


def models() -> dict[str, Entry]:
    """All that the installed libraries can build."""
    found: dict[str, Entry] = {}
    if find_spec("transformers"):
        found |= {f"hf {name}": _transformer(name) for name in CONFIGS}
    if find_spec("timm"):
        found |= {
            "timm efficientnet": _timm("efficientnet_b0", 64, channel_multiplier=0.1, depth_multiplier=0.2),
            "timm resnetv2 (BiT)": _timm("resnetv2_50", 32, layers=[1, 1], channels=(16, 32), stem_chs=8),
            "timm nfnet": _timm("nfnet_l0", 32, depths=(1, 1), channels=(16, 16), stem_chs=8, group_size=8),
        }
    if find_spec("torchvision"):
        found |= {"torchvision resnet18": _torchvision("resnet18", 32)}
    return found
