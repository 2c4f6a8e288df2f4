"""config.json → transformers' own model → the run's verdicts: names, inputs, and what is refused."""

import json
import re

import pytest

from smd_analyze.errors import MissingLibrary, UsageError
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.sources import registry
from smd_analyze.invariance.sources.huggingface_config import plain, refuse_others
from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import GraphHint

torch = pytest.importorskip("torch")
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
WORDS = {"vocab_size": 64, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SAID = {  # model → what its verdicts must be: parameter → (status, granularity)
    "Qwen3ForCausalLM": {
        "model.layers.0.self_attn.q_proj.weight": ("invariant", "block"),
        "model.layers.0.self_attn.v_proj.weight": ("not invariant", ""),
    },
    "Olmo2ForCausalLM": {
        "model.layers.0.self_attn.q_proj.weight": ("invariant", "whole"),
        "model.layers.0.mlp.down_proj.weight": ("invariant", "whole"),
    },
    "BertForMaskedLM": {"bert.encoder.layer.0.attention.self.key.bias": ("dead", "")},
    "ViTForImageClassification": {"vit.encoder.layer.0.attention.attention.key.bias": ("dead", "")},
    "GPTNeoXForCausalLM": {"embed_out.weight": ("not invariant", "")},
    "MixtralForCausalLM": {
        "model.layers.0.block_sparse_moe.experts.3.w1.weight": ("not invariant", ""),
        "model.layers.0.block_sparse_moe.experts.3.w2.weight": ("jointly invariant", "whole"),  # it writes the stream
    },
    "CLIPModel": {"text_projection.weight": ("invariant", "whole"), "visual_projection.weight": ("invariant", "whole")},
    "WhisperForConditionalGeneration": {"model.decoder.layers.0.fc1.weight": ("not invariant", "")},
}


def configured(transformers, name):
    kind = getattr(transformers, name)
    text, image = {**SIZES, **WORDS}, {**SIZES, "image_size": 32, "patch_size": 8}
    own = {
        "ViTForImageClassification": image,
        "MixtralForCausalLM": {**text, "num_key_value_heads": 2, "num_local_experts": 4},
        "CLIPModel": {"text_config": {**text, "projection_dim": 16}, "vision_config": {**image, "projection_dim": 16},
                      "projection_dim": 16},
        "WhisperForConditionalGeneration": {
            **WORDS, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 16,
            "max_source_positions": 32, "max_target_positions": 32, "decoder_start_token_id": 1,
        },
    }.get(name, text)  # fmt: skip
    own = {**own, "num_key_value_heads": 2, "head_dim": 8} if name.startswith(("Qwen", "Olmo")) else own
    return kind(kind.config_class(**own))


@pytest.fixture
def transformers():
    found = pytest.importorskip("transformers")
    found.utils.logging.set_verbosity_error()
    return found


@pytest.mark.parametrize("name", SAID)
@pytest.mark.filterwarnings("ignore")  # what transformers itself warns of
def test_a_saved_model_is_proved_on_its_own_graph(transformers, tmp_path, name):
    torch.manual_seed(0)
    configured(transformers, name).save_pretrained(tmp_path / "checkpoint-10")
    groups = find_groups(load_run(tmp_path))
    assert groups.source.startswith(f"graph of {name} of config.json")
    assert not [f for f in groups.findings if f.code in ("not-in-model", "not-in-run", "model-shape-differs")]
    assert {r.evidence for r in groups.parameters} <= {"proved", "not proved"}
    found = {r.parameter: (r.status, r.granularity) for r in groups.parameters}
    assert {p: found[p] for p in SAID[name]} == SAID[name]


@pytest.mark.filterwarnings("ignore")
def test_a_config_above_the_checkpoints_counts_and_names_alone_can_be_asked_for(transformers, tmp_path):
    model = configured(transformers, "Qwen3ForCausalLM")
    model.save_pretrained(tmp_path)
    (tmp_path / "step-1").mkdir()
    (tmp_path / "model.safetensors").rename(tmp_path / "step-1" / "weights.safetensors")
    run = load_run(tmp_path)
    assert [h.source for h in run.graphs] == [str(tmp_path / "config.json")]
    assert find_groups(run).source.startswith("graph of Qwen3ForCausalLM")
    assert find_groups(run, model="none").source == "names and shapes"


@pytest.mark.filterwarnings("ignore")
def test_code_that_a_repository_brings_along_is_not_run_and_said(transformers, tmp_path):
    configured(transformers, "Qwen3ForCausalLM").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Own"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling.py").write_text("raise SystemExit('run')")
    codes = {f.code: f for f in find_groups(load_run(tmp_path)).findings}
    assert codes["custom-code-not-run"].severity == "warning"
    config["architectures"] = ["OwnForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    groups = find_groups(load_run(tmp_path))
    assert groups.source == "names and shapes"
    assert "never fetched or run" in groups.findings[-1].message


def test_adapters_and_diffusers_say_what_is_missing():
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    with pytest.raises(UsageError, match=r"holds an adapter \(LORA\); the model that it adapts \(org/base\) is not in"):
        refuse_others(adapter, "adapter_config.json")
    with pytest.raises(UsageError, match=r"diffusers' configuration of a UNet2DModel.*--model"):
        refuse_others({"_class_name": "UNet2DModel"}, "config.json")


def test_timms_config_names_its_function():
    with pytest.raises(UsageError, match=r"timm's configuration of a resnet18.*timm\.create_model"):
        refuse_others({"architecture": "resnet18", "pretrained_cfg": {}}, "config.json")


def test_a_run_without_transformers_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    hint = GraphHint("huggingface config", "config.json", dict)
    (source, _), *_ = registry.known([hint])
    with pytest.raises(MissingLibrary, match=re.escape("pip install 'smd-analyze[transformers]'")):
        registry.build(source, hint, {})


def test_numbers_that_json_cannot_say_are_read():
    assert plain({"a": [0.0, {"__float__": "Infinity"}], "b": {"c": {"__float__": "-Infinity"}}}) == {
        "a": [0.0, float("inf")],
        "b": {"c": float("-inf")},
    }
