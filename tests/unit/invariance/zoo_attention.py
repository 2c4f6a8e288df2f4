"""Attention, language models, embeddings and recurrent cells of the zoo."""

import torch
import torch.nn.functional as F
from torch import nn
from zoo_parts import (
    BLOCK,
    DEAD,
    JOINT_BLOCK,
    JOINT_WHOLE,
    NOT,
    UNIT,
    WHOLE,
    Net,
    entry,
    sequence,
    tokens,
)


class Attention(nn.Module):
    """Attention with optional norms of queries and keys: None, per "head" or over "all" heads."""

    def __init__(self, width=8, heads=2, qk_norm=None, bias=False, norm=nn.RMSNorm):
        super().__init__()
        self.heads, self.qk_norm = heads, qk_norm
        for name in "qkvo":
            setattr(self, f"{name}_proj", nn.Linear(width, width, bias=bias))
        size = width // heads if qk_norm == "head" else width
        self.q_norm, self.k_norm = (norm(size, eps=1e-6), norm(size, eps=1e-6)) if qk_norm else (None, None)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.qk_norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(a.transpose(1, 2).reshape(b, t, d))


class Gated(nn.Module):
    """A gated MLP."""

    def __init__(self, width=8, hidden=12):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A transformer layer: norms before the sublayers, after them, or both."""

    def __init__(self, before=True, after=False, **attention):
        super().__init__()
        self.before, self.after = before, after
        self.self_attn, self.mlp = Attention(**attention), Gated()
        if before:
            self.input_layernorm, self.pre_feedforward_layernorm = nn.RMSNorm(8, eps=1e-6), nn.RMSNorm(8, eps=1e-6)
        if after:
            self.post_attention_layernorm = nn.RMSNorm(8, eps=1e-6)
            self.post_feedforward_layernorm = nn.RMSNorm(8, eps=1e-6)

    def forward(self, x):
        h = self.self_attn(self.input_layernorm(x) if self.before else x)
        x = x + (self.post_attention_layernorm(h) if self.after else h)
        h = self.mlp(self.pre_feedforward_layernorm(x) if self.before else x)
        return x + (self.post_feedforward_layernorm(h) if self.after else h)


class Language(nn.Module):
    """Embedding, layers, final norm, head."""

    def __init__(self, *layers):
        super().__init__()
        self.embed_tokens, self.layers = nn.Embedding(12, 8), nn.ModuleList(layers)
        self.norm, self.lm_head = nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 12, bias=False)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


MATRICES = [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")]
WRITERS = ("self_attn.o_proj", "mlp.down_proj")  # to the residual stream


@entry
def pre_norm_language_model():  # T9
    expected = {f"layers.{i}.{m}.weight": JOINT_WHOLE if m in WRITERS else NOT for i in (0, 1) for m in MATRICES}
    expected |= {"embed_tokens.weight": JOINT_WHOLE, "lm_head.weight": NOT}
    return Language(Layer(), Layer()), tokens(), expected


@entry
def query_key_norm_per_head():  # T7
    expected = {f"layers.0.{m}.weight": JOINT_WHOLE if m in WRITERS else NOT for m in MATRICES}
    expected |= {f"layers.0.self_attn.{n}_proj.weight": BLOCK for n in "qk"}
    return Language(Layer(qk_norm="head")), tokens(), expected


@entry
def query_key_norm_with_bias():  # T7
    net = Language(Layer(qk_norm="head", bias=True))
    expected = {f"layers.0.self_attn.{n}_proj.{t}": JOINT_BLOCK for n in "qk" for t in ("weight", "bias")}
    return net, tokens(), expected | {"layers.0.self_attn.v_proj.weight": NOT}


@entry
def norm_after_sublayer():  # T7, T8
    net = Language(Layer(before=False, after=True, qk_norm="all"))
    expected = {f"layers.0.{m}.weight": WHOLE for m in MATRICES if "gate" not in m}
    return net, tokens(), expected | {"layers.0.mlp.gate_proj.weight": NOT}


@entry
def post_norm_encoder_layer():  # T9
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True), nn.Linear(8, 3))
    expected = {f"0.{n}.weight": NOT for n in ("linear1", "linear2", "self_attn.out_proj")} | {"1.weight": NOT}
    return net, sequence(), expected | {"0.self_attn.in_proj_weight": NOT, "0.self_attn.in_proj_bias": [NOT, DEAD, NOT]}


@entry
def pre_norm_encoder_layer():  # T9
    net = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True), nn.LayerNorm(8), nn.Linear(8, 3)
    )
    expected = {f"0.{n}.weight": NOT for n in ("linear1", "linear2", "self_attn.out_proj")}
    return net, sequence(), expected | {"0.self_attn.in_proj_weight": NOT, "0.self_attn.in_proj_bias": [NOT, DEAD, NOT]}


@entry
def fused_qkv_normalized():  # T17
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.o, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 3)

        def forward(self, x):
            b, t, d = x.shape
            q, k, v = self.qkv(x).view(b, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
            a = F.softmax(8 * F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2), -1) @ v
            return self.out(x + self.o(a.transpose(1, 2).reshape(b, t, d)))

    return Fused(), sequence(), {"qkv.weight": [BLOCK, NOT], "o.weight": NOT}


@entry
def embedding_under_norm():
    def run(m, i):
        return m.head(F.relu(m.fc(m.norm(m.embed(i)))))

    net = Net(run, embed=nn.Embedding(12, 8), norm=nn.LayerNorm(8), fc=nn.Linear(8, 8), head=nn.Linear(8, 5))
    return net, tokens(), {"embed.weight": UNIT, "head.weight": NOT}


@entry
def position_table_longer_than_the_input():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.table = nn.Embedding(12, 8), nn.Parameter(torch.randn(16, 8))
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, i):
            return self.head(self.norm(self.embed(i) + self.table[: i.shape[1]]))

    return Positions(), tokens(), {"embed.weight": JOINT_WHOLE, "table": JOINT_WHOLE}


@entry
def recurrent():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.ln, self.fc = nn.LSTM(6, 5, batch_first=True), nn.LayerNorm(5), nn.Linear(5, 3)

        def forward(self, x):
            return self.fc(self.ln(self.lstm(x)[0][:, -1]))

    return Cell(), sequence(6, 4, 3), {"lstm.weight_ih_l0": NOT, "lstm.weight_hh_l0": NOT, "fc.weight": NOT}
