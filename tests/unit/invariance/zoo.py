"""Small networks that cover the tricky cases, each with the verdicts that are known by hand.

`ZOO` maps a name to a builder of (model, example inputs, expected); `expected` maps a parameter to
(status, granularity), or to one such pair per slice. What is not listed is judged by the numerical oracle alone.
"""

import torch
import torch.nn.functional as F
from torch import nn

UNIT, BLOCK, WHOLE = ("invariant", "unit"), ("invariant", "block"), ("invariant", "whole")
NOT, DEAD = ("not invariant", ""), ("dead", "")
JOINT_UNIT, JOINT_BLOCK, JOINT_WHOLE = (("jointly invariant", g) for g in ("unit", "block", "whole"))
ZOO = {}


def entry(function):
    ZOO[function.__name__] = function
    return function


def image(channels=3, size=10, batch=3):
    return (torch.randn(batch, channels, size, size),)


def vector(width=7, batch=6):
    return (torch.randn(batch, width),)


def sequence(width=8, length=5, batch=2):
    return (torch.randn(batch, length, width),)


def tokens(vocabulary=12, length=6, batch=2):
    return (torch.arange(batch * length).reshape(batch, length) % vocabulary,)


class Net(nn.Module):
    """A network from named parts and a function (parts, input) → output."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def pooled(x):
    return x.mean((2, 3))


# ------------------------------------------------------------------ convolutional


@entry
def conv_bias_batch_norm():  # T1
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"0.weight": UNIT, "0.bias": DEAD, "4.weight": UNIT, "4.bias": DEAD, "9.weight": NOT}


@entry
def residual_post_norm():
    def run(m, x):
        h = F.relu(m.bn1(m.conv1(x)))
        y = m.bn3(m.conv3(F.relu(m.bn2(m.conv2(h)))))
        return m.fc(pooled(F.relu(y + m.shortcut(h))))

    net = Net(
        run, conv1=nn.Conv2d(3, 6, 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(6),
        conv2=nn.Conv2d(6, 8, 3, 2, 1, bias=False), bn2=nn.BatchNorm2d(8),
        conv3=nn.Conv2d(8, 8, 3, 1, 1, bias=False), bn3=nn.BatchNorm2d(8),
        shortcut=nn.Sequential(nn.Conv2d(6, 8, 1, 2, bias=False), nn.BatchNorm2d(8)), fc=nn.Linear(8, 5),
    )  # fmt: skip
    invariant = {f"{c}.weight": UNIT for c in ("conv1", "conv2", "conv3", "shortcut.0")}
    return net, image(), invariant | {"fc.weight": NOT, "bn1.weight": JOINT_WHOLE, "bn3.weight": NOT}


@entry
def residual_pre_activation():  # T3
    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, stride, 1, bias=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.shortcut = nn.Conv2d(i, o, 1, stride, bias=False) if i != o or stride != 1 else None

        def forward(self, x):
            h = F.relu(self.bn1(x))
            side = x if self.shortcut is None else self.shortcut(h)
            return self.conv2(F.relu(self.bn2(self.conv1(h)))) + side

    def run(m, x):
        return m.fc(pooled(F.relu(m.bn(m.blocks(m.conv1(x))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 6, 3, 1, 1, bias=False), blocks=nn.Sequential(Block(6, 6, 1), Block(6, 8, 2)),
        bn=nn.BatchNorm2d(8), fc=nn.Linear(8, 5),
    )  # fmt: skip
    expected = {"conv1.weight": NOT, "blocks.0.conv1.weight": UNIT, "blocks.0.conv2.weight": NOT}
    return (
        net,
        image(),
        expected | {"blocks.1.conv1.weight": UNIT, "blocks.1.conv2.weight": NOT, "blocks.1.shortcut.weight": NOT},
    )


@entry
def frozen_batch_norm():  # T4
    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    def run(m, x):
        return m.fc(pooled(F.relu(m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x))))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 5, 3, bias=False), bn1=Frozen(5), conv2=nn.Conv2d(5, 6, 3, bias=False),
        bn2=nn.BatchNorm2d(6), fc=nn.Linear(6, 3),
    )  # fmt: skip
    return net, image(), {"conv1.weight": NOT, "conv2.weight": UNIT}


@entry
def depthwise_separable_one_norm():  # T5
    def run(m, x):
        return m.fc(pooled(F.relu(m.bn(m.pointwise(m.depthwise(x))))))

    net = Net(
        run, depthwise=nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), pointwise=nn.Conv2d(3, 6, 1, bias=False),
        bn=nn.BatchNorm2d(6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"depthwise.weight": WHOLE, "pointwise.weight": UNIT}


@entry
def depthwise_with_norms():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False),
        nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    return net, image(), {"0.weight": UNIT, "3.weight": UNIT, "6.weight": UNIT, "10.weight": NOT}


@entry
def grouped_conv():
    def run(m, x):
        return m.fc(pooled(F.relu(m.bn(m.conv2(F.relu(m.conv1(x)))))))

    net = Net(
        run, conv1=nn.Conv2d(3, 8, 1, bias=False), conv2=nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
        bn=nn.BatchNorm2d(8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"conv1.weight": BLOCK, "conv2.weight": UNIT}


@entry
def group_norm():  # T2
    def run(m, x):
        h = F.relu(m.gn1(m.conv1(x)))
        h = F.relu(m.gn2(m.conv2(h)))
        return m.fc(pooled(F.relu(m.gn3(m.conv3(h)))))

    net = Net(
        run, conv1=nn.Conv2d(3, 8, 3, padding=1), gn1=nn.GroupNorm(4, 8), conv2=nn.Conv2d(8, 8, 3, bias=False),
        gn2=nn.GroupNorm(2, 8), conv3=nn.Conv2d(8, 8, 1), gn3=nn.GroupNorm(8, 8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    expected = {"conv1.weight": JOINT_BLOCK, "conv1.bias": JOINT_BLOCK, "conv2.weight": BLOCK}
    return net, image(), expected | {"conv3.weight": UNIT, "conv3.bias": DEAD}


@entry
def instance_norm_transposed_conv():
    def run(m, x):
        return m.out(F.relu(m.norm2(m.up(F.leaky_relu(m.norm1(m.conv(x)), 0.1)))))

    net = Net(
        run, conv=nn.Conv2d(3, 4, 3, padding=1), norm1=nn.InstanceNorm2d(4, affine=True),
        up=nn.ConvTranspose2d(4, 5, 2, 2, bias=False), norm2=nn.InstanceNorm2d(5), out=nn.Conv2d(5, 2, 1),
    )  # fmt: skip
    return net, image(size=6), {"conv.weight": UNIT, "conv.bias": DEAD, "up.weight": UNIT, "out.weight": NOT}


@entry
def squeeze_excite():  # T11
    def gate(x, a, b):
        return x * torch.sigmoid(b(F.relu(a(pooled(x)))))[:, :, None, None]

    def run(m, x):
        h = F.relu(gate(m.bn1(m.conv1(x)), m.a1, m.b1))
        return m.fc(pooled(F.relu(m.bn2(gate(m.conv2(h), m.a2, m.b2)))))

    net = Net(
        run, conv1=nn.Conv2d(3, 6, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(6), a1=nn.Linear(6, 3),
        b1=nn.Linear(3, 6), conv2=nn.Conv2d(6, 6, 1, bias=False), bn2=nn.BatchNorm2d(6), a2=nn.Linear(6, 3),
        b2=nn.Linear(3, 6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"conv1.weight": UNIT, "conv2.weight": NOT, "a1.weight": NOT, "b2.weight": NOT}


@entry
def branches_before_one_norm():  # T12
    def run(m, x):
        h = F.relu(m.bn0(m.conv0(x)))
        return m.fc(pooled(F.relu(m.bn(m.conv3(h) + m.conv1(h)))))

    net = Net(
        run, conv0=nn.Conv2d(3, 6, 1, bias=False), bn0=nn.BatchNorm2d(6),
        conv3=nn.Conv2d(6, 6, 3, padding=1, bias=False),
        conv1=nn.Conv2d(6, 6, 1, bias=False), bn=nn.BatchNorm2d(6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"conv0.weight": UNIT, "conv3.weight": NOT, "conv1.weight": NOT}


@entry
def zero_padded_shortcut():  # T12
    def run(m, x):
        x = m.conv0(x)
        side = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return m.fc(pooled(F.relu(m.bn2(m.conv1(F.relu(m.bn1(x))) + side))))

    net = Net(
        run, conv0=nn.Conv2d(3, 4, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(4, 8, 3, 2, 1, bias=False), bn2=nn.BatchNorm2d(8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"conv0.weight": NOT, "conv1.weight": [UNIT, NOT, UNIT]}


@entry
def padded_pool_before_norm():  # T15
    def run(m, x):
        h = F.relu(m.bn1(F.avg_pool2d(m.conv1(x), 2)))
        h = F.relu(m.bn2(F.avg_pool2d(m.conv2(h), 3, 2, 1)))
        h = F.relu(m.bn3(F.relu(m.conv3(h))))
        return m.fc(pooled(h))

    net = Net(
        run, conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 4, 1), bn2=nn.BatchNorm2d(4),
        conv3=nn.Conv2d(4, 4, 1), bn3=nn.BatchNorm2d(4), fc=nn.Linear(4, 3),
    )  # fmt: skip
    expected = {"conv1.weight": UNIT, "conv1.bias": DEAD, "conv2.weight": JOINT_UNIT, "conv2.bias": JOINT_UNIT}
    return net, image(), expected | {"conv3.weight": JOINT_UNIT, "conv3.bias": JOINT_UNIT}


@entry
def dense_concatenation():
    def run(m, x):
        x = m.conv0(x)
        x = torch.cat([x, m.conv1(F.relu(m.norm1(x)))], 1)
        return m.fc(pooled(F.relu(m.norm2(x))))

    net = Net(
        run, conv0=nn.Conv2d(3, 4, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(4, 3, 3, padding=1, bias=False), norm2=nn.BatchNorm2d(7), fc=nn.Linear(7, 4),
    )  # fmt: skip
    return net, image(), {"conv0.weight": UNIT, "conv1.weight": UNIT}


@entry
def shared_conv():  # T18
    def run(m, x):
        h = F.relu(m.bn0(m.conv0(x)))
        h = F.relu(m.bn1(m.conv(h)))
        return m.fc(pooled(F.relu(m.bn2(m.conv(h)))))

    net = Net(
        run, conv0=nn.Conv2d(3, 6, 1, bias=False), bn0=nn.BatchNorm2d(6),
        conv=nn.Conv2d(6, 6, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(6), bn2=nn.BatchNorm2d(6), fc=nn.Linear(6, 4),
    )  # fmt: skip
    return net, image(), {"conv.weight": UNIT}


@entry
def weight_standardization():  # T16
    class Standardized(nn.Conv2d):
        eps = 1e-10

        def forward(self, x):
            v, m = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
            return F.conv2d(x, (self.weight - m) / torch.sqrt(v + self.eps), None, self.stride, self.padding)

    def run(m, x):
        return m.fc(pooled(F.relu(m.gn(m.conv2(F.relu(m.conv1(x)))))))

    net = Net(
        run, conv1=Standardized(3, 4, 3, padding=1, bias=False), conv2=Standardized(4, 8, 3, bias=False),
        gn=nn.GroupNorm(2, 8), fc=nn.Linear(8, 4),
    )  # fmt: skip
    return net, image(), {"conv1.weight": UNIT, "conv2.weight": UNIT, "fc.weight": NOT}


# ------------------------------------------------------------------ dense


@entry
def layer_norm_mlp():  # T2
    net = nn.Sequential(
        nn.Linear(7, 8),
        nn.LayerNorm(8),
        nn.ReLU(),
        nn.Linear(8, 6, bias=False),
        nn.LayerNorm(6),
        nn.GELU(),
        nn.Linear(6, 3),
    )
    expected = {"0.weight": JOINT_WHOLE, "0.bias": JOINT_WHOLE, "3.weight": WHOLE, "6.weight": NOT}
    return net, vector(), expected


@entry
def batch_norm_mlp():
    net = nn.Sequential(
        nn.Linear(7, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)
    )
    expected = {"0.weight": UNIT, "0.bias": DEAD, "3.weight": JOINT_UNIT, "3.bias": JOINT_UNIT, "6.weight": NOT}
    return net, vector(), expected


@entry
def two_linears_then_norm():  # T6
    net = nn.Sequential(
        nn.Linear(7, 6, bias=False), nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )
    return net, vector(), {"0.weight": WHOLE, "1.weight": UNIT, "4.weight": NOT}


@entry
def rms_norm_does_not_centre():  # T19
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.shift = nn.Linear(7, 8, bias=False), nn.Parameter(torch.randn(()))
            self.rms, self.b = nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 8, bias=False)
            self.shift2, self.ln, self.c = nn.Parameter(torch.randn(())), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            h = F.relu(self.rms(self.a(x) + self.shift))
            return self.c(self.ln(self.b(h) + self.shift2))

    expected = {"a.weight": NOT, "shift": NOT, "b.weight": WHOLE, "shift2": DEAD}
    return Shifted(), vector(), expected


@entry
def activations_before_norm():  # T20
    def run(m, x):
        parts = [
            F.hardtanh(m.a(x), 0, 1), F.hardswish(m.b(x)), m.c(x).clamp(-1, 1), F.gelu(m.d(x)), F.relu(m.e(x)),
            F.leaky_relu(m.f(x)), m.prelu(m.g(x)), m.h(x).abs(), F.relu(m.i(x)).square(),
        ]  # fmt: skip
        return m.out(torch.cat([n(p) for n, p in zip(m.norms, parts, strict=True)], 1))

    names = "abcdefghi"
    layers = {n: nn.Linear(7, 4, bias=False) for n in names}
    norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in names)
    net = Net(run, **layers, prelu=nn.PReLU(4), norms=norms, out=nn.Linear(36, 3))
    breaks = {f"{n}.weight": NOT for n in "abcd"}
    return net, vector(batch=12), breaks | {f"{n}.weight": UNIT for n in "efghi"} | {"prelu.weight": NOT}


@entry
def weight_norm_and_cosine_head():  # T16
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.utils.parametrizations.weight_norm(nn.Linear(7, 8))
            self.b = nn.utils.parametrizations.weight_norm(nn.Linear(8, 6), dim=None)
            self.head, self.scale = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.tensor(1.3))

        def forward(self, x):
            h = torch.tanh(self.b(F.relu(self.a(x))))
            return self.scale.exp() * F.linear(F.normalize(h, dim=-1), F.normalize(self.head, dim=-1))

    stem = "parametrizations.weight.original"
    expected = {f"a.{stem}1": UNIT, f"a.{stem}0": NOT, f"b.{stem}1": WHOLE, "head": UNIT, "scale": NOT}
    return Cosine(), vector(), expected


@entry
def detached_norm():
    def run(m, x):
        a, b = m.a(x), m.b(x)
        a = a / a.norm(dim=-1, keepdim=True).detach()
        return m.out(torch.tanh(a + b / b.norm(dim=-1, keepdim=True)))

    net = Net(run, a=nn.Linear(7, 8, bias=False), b=nn.Linear(7, 8, bias=False), out=nn.Linear(8, 3))
    return net, vector(), {"a.weight": NOT, "b.weight": WHOLE}


@entry
def tied_transposed():  # T18
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.ln, self.out = nn.Parameter(torch.randn(5, 7)), nn.LayerNorm(7), nn.Linear(7, 3)

        def forward(self, x):
            return self.out(self.ln(F.relu(x @ self.w.T) @ self.w))

    return Tied(), vector(), {"w": WHOLE}


@entry
def low_rank_merged():
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.a, self.b = (nn.Parameter(torch.randn(s)) for s in ((6, 7), (2, 7), (6, 2)))
            self.ln, self.out = nn.LayerNorm(6), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.ln(F.linear(x, self.w + self.b @ self.a)))

    return Merged(), vector(), {"w": NOT, "a": NOT, "b": NOT}


@entry
def written_in_place():  # T21
    def run(m, x):
        z = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        z[:, :4] = m.a(x)
        z[:, 4:] = m.b(x)
        return m.out(m.ln(z))

    net = Net(
        run, a=nn.Linear(7, 4, bias=False), b=nn.Linear(7, 4, bias=False), ln=nn.LayerNorm(8), out=nn.Linear(8, 3)
    )
    return net, vector(), {"a.weight": NOT, "b.weight": NOT}


@entry
def opaque_operation():
    def run(m, x):
        h = torch.linalg.svdvals(m.a(x))
        return m.out(m.ln(h))

    net = Net(run, a=nn.Linear(7, 8, bias=False), ln=nn.LayerNorm(6), out=nn.Linear(6, 3))
    return net, vector(), {"a.weight": NOT, "out.weight": NOT}


# ------------------------------------------------------------------ attention


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


@entry
def pre_norm_language_model():  # T9
    expected = {f"layers.{i}.{m}.weight": NOT for i in (0, 1) for m in MATRICES}
    return Language(Layer(), Layer()), tokens(), expected | {"embed_tokens.weight": NOT, "lm_head.weight": NOT}


@entry
def query_key_norm_per_head():  # T7
    expected = {f"layers.0.{m}.weight": NOT for m in MATRICES}
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

    return Positions(), tokens(), {"embed.weight": NOT, "table": NOT}


@entry
def recurrent():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.ln, self.fc = nn.LSTM(6, 5, batch_first=True), nn.LayerNorm(5), nn.Linear(5, 3)

        def forward(self, x):
            return self.fc(self.ln(self.lstm(x)[0][:, -1]))

    return Cell(), sequence(6, 4, 3), {"lstm.weight_ih_l0": NOT, "lstm.weight_hh_l0": NOT, "fc.weight": NOT}
