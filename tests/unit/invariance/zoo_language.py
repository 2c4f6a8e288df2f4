"""More of language models: rotations, stacks of experts, normalized weights, heads whose norm lies in the loss."""

import torch
import torch.nn.functional as F
from torch import nn
from zoo_attention import Attention, Layer
from zoo_parts import (
    BLOCK,
    DEAD,
    JOINT_WHOLE,
    NOT,
    UNIT,
    WHOLE,
    Net,
    entry,
    sequence,
    tokens,
)


def unit(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


def heads(x, number):
    return x.view(*x.shape[:2], number, -1).transpose(1, 2)


def merged(x):
    return x.transpose(1, 2).flatten(2)


class Rotary(nn.Module):
    """Attention with biases whose queries and keys are turned by their position, in the first `turned` dimensions."""

    def __init__(self, turned, size=4, number=2):
        super().__init__()
        self.turned, self.number, width = turned, number, size * number
        for name in "qkvo":
            setattr(self, f"{name}_proj", nn.Linear(width, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def rotated(self, x):
        half = self.turned // 2
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / (1 + torch.arange(half, dtype=x.dtype))
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos(), rest], -1)

    def forward(self, x):
        q, k, v = (heads(p(x), self.number) for p in (self.q_proj, self.k_proj, self.v_proj))
        a = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v)
        return self.head(self.norm(x + self.o_proj(merged(a))))


@entry
def rotated_key_bias():  # T10: after the turn the bias differs from key to key, and softmax cannot delete it
    return Rotary(4), sequence(), {"k_proj.bias": NOT, "k_proj.weight": NOT, "q_proj.bias": NOT}


@entry
def partly_rotated_key_bias():  # T10: what is not turned is the same for every key
    return Rotary(2), sequence(), {"k_proj.bias": [NOT, DEAD], "k_proj.weight": NOT}


@entry
def key_bias():  # T9: softmax deletes what is the same for every key
    def run(m, x):
        return m.head(m.norm(x + m.attention(x)))

    net = Net(run, attention=Attention(bias=True), norm=nn.LayerNorm(8), head=nn.Linear(8, 3))
    return (
        net,
        sequence(),
        {"attention.k_proj.bias": DEAD, "attention.q_proj.bias": NOT, "attention.k_proj.weight": NOT},
    )


@entry
def norm_of_each_head_after_attention():  # T25: a head's values pass linearly into that head's norm
    def run(m, x):
        q, k, v = (heads(p(x), 2) for p in (m.q, m.k, m.v))
        return m.head(F.gelu(m.o(merged(m.norm(F.scaled_dot_product_attention(q, k, v))))))

    parts = {n: nn.Linear(8, 8, bias=False) for n in "qkvo"}
    net = Net(run, **parts, norm=nn.RMSNorm(4, eps=1e-6), head=nn.Linear(8, 3))
    return net, sequence(), {"v.weight": BLOCK, "q.weight": NOT, "k.weight": NOT, "o.weight": NOT}


@entry
def three_embeddings_under_one_norm():  # T13: each is measured against the other two
    class Embeddings(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.kinds = nn.Embedding(12, 8), nn.Embedding(6, 8), nn.Embedding(2, 8)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, i):
            place = torch.arange(i.shape[1])
            return self.head(F.gelu(self.norm(self.words(i) + self.places(place) + self.kinds(i % 2))))

    return Embeddings(), tokens(), {f"{n}.weight": JOINT_WHOLE for n in ("words", "places", "kinds")}


@entry
def tied_to_the_head():  # T18, T13: the head's side feels the scale
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Embedding(12, 8), nn.RMSNorm(8, eps=1e-6)
            self.head = nn.Linear(8, 12, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, i):
            return self.head(torch.tanh(self.norm(self.embed(i))))

    return Tied(), tokens(), {"embed.weight": NOT}


@entry
def fused_gate_and_up():  # T17: the gate needs its scale, the other half is divided by the norm behind
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up, self.down = nn.Linear(8, 20, bias=False), nn.Linear(10, 8, bias=False)
            self.norm, self.head = nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 3)

        def forward(self, x):
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.head(x + self.norm(self.down(F.silu(gate) * up)))

    return Fused(), sequence(), {"gate_up.weight": [NOT, WHOLE], "down.weight": WHOLE}


class Normalized(nn.Module):
    """A layer in nGPT's manner, on the sphere: states are normalized, weights in forward or not (then after steps)."""

    def __init__(self, in_forward, d=8):
        super().__init__()
        self.in_forward = in_forward
        sizes = {"embed": (12, d), "q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d), "u": (12, d), "gate": (12, d)}
        for name, size in (sizes | {"down": (d, 12), "head": (12, d)}).items():
            setattr(self, name, nn.Parameter(torch.randn(size)))
        self.scale_u = nn.Parameter(torch.ones(12))
        self.step_a, self.step_m = nn.Parameter(torch.rand(d)), nn.Parameter(torch.rand(d))

    def matrix(self, name, dim=-1):
        return unit(getattr(self, name), dim) if self.in_forward else getattr(self, name)

    def forward(self, i):
        h = self.matrix("embed")[i]
        q, k = (unit(heads(h @ self.matrix(n).T, 2)) for n in "qk")
        v = heads(h @ self.matrix("v").T, 2)
        a = merged(F.scaled_dot_product_attention(q, k, v, scale=2.0)) @ self.matrix("o", 0).T
        h = unit(h + self.step_a * (unit(a) - h))
        m = self.scale_u * (h @ self.matrix("u").T) * F.silu(h @ self.matrix("gate").T)
        h = unit(h + self.step_m * (unit(m @ self.matrix("down", 0).T) - h))
        return h @ self.matrix("head").T


@entry
def weights_normalized_in_forward():  # T22: each row, of those that write to the stream each column
    expected = {n: UNIT for n in ("embed", "q", "k", "v", "u", "gate", "head", "o", "down")}
    return Normalized(True), tokens(), expected | {"scale_u": WHOLE, "step_a": NOT}


@entry
def weights_normalized_by_the_optimizer():  # T22: the function decides, and it reads gate, embedding and head as are
    expected = {"q": BLOCK, "k": BLOCK, **{n: WHOLE for n in ("v", "o", "u", "down", "scale_u")}}
    return Normalized(False), tokens(), expected | {n: NOT for n in ("gate", "embed", "head")}


@entry
def experts():  # the router's choice and weights need its scale; experts' up and down pass linearly to the norm
    def run(m, x):
        weight, chosen = F.softmax(m.router(x), -1).topk(2, -1)
        mask = torch.zeros_like(m.router(x)).scatter(-1, chosen, weight)
        up, gate = torch.einsum("btd,ehd->bteh", x, m.up), torch.einsum("btd,ehd->bteh", x, m.gate)
        y = torch.einsum("bteh,edh->bted", F.silu(gate) * up, m.down)
        return m.head(m.norm((y * mask[..., None]).sum(2)))

    stacks = {n: nn.Parameter(torch.randn(s)) for n, s in (("up", (3, 6, 8)), ("gate", (3, 6, 8)), ("down", (3, 8, 6)))}
    net = Net(run, router=nn.Linear(8, 3, bias=False), **stacks, norm=nn.RMSNorm(8, eps=1e-6), head=nn.Linear(8, 3))
    return net, sequence(), {"router.weight": NOT, "gate": NOT, "up": WHOLE, "down": WHOLE}


class TwoTowers(nn.Module):
    """Images and texts as vectors; `in_graph`: their similarity, which the loss reads, is the output."""

    def __init__(self, in_graph):
        super().__init__()
        self.in_graph = in_graph
        self.image, self.text = nn.Linear(7, 8), nn.Linear(7, 8)
        self.image_projection, self.text_projection = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=False)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y):
        a = self.image_projection(torch.tanh(self.image(x)))
        b = self.text_projection(torch.tanh(self.text(y)))
        return self.scale.exp() * unit(a) @ unit(b).T if self.in_graph else (a, b)


@entry
def similarity_in_the_graph():  # T23
    inputs = (torch.randn(5, 7), torch.randn(5, 7))
    expected = {"image_projection.weight": WHOLE, "text_projection.weight": WHOLE, "scale": NOT}
    return TwoTowers(True), inputs, expected


@entry
def similarity_outside_the_graph():  # T23: outputs that a loss would normalize are read as they are
    inputs = (torch.randn(5, 7), torch.randn(5, 7))
    return TwoTowers(False), inputs, {"image_projection.weight": NOT, "text_projection.weight": NOT}


@entry
def layer_norm_recurrent_cell():  # both products are normalized before they meet; the gates then need their scale
    class Cell(nn.Module):
        def __init__(self, inputs=6, size=5):
            super().__init__()
            self.size, self.x, self.h = (
                size,
                nn.Linear(inputs, 4 * size, bias=False),
                nn.Linear(size, 4 * size, bias=False),
            )
            self.norm_x, self.norm_h = nn.LayerNorm(4 * size), nn.LayerNorm(4 * size)
            self.norm_c, self.out = nn.LayerNorm(size), nn.Linear(size, 3)

        def forward(self, x):
            h = c = torch.full((x.shape[0], self.size), 0.1, dtype=x.dtype) * torch.arange(1, self.size + 1)
            for t in range(2):
                i, f, g, o = (self.norm_x(self.x(x[:, t])) + self.norm_h(self.h(h))).chunk(4, -1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * self.norm_c(c).tanh()
            return self.out(h)

    return Cell(), sequence(6, 2, 3), {"x.weight": WHOLE, "h.weight": WHOLE, "out.weight": NOT}


@entry
def zero_initialized():  # T24: zeros and ones at the start change nothing
    class Start(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = Layer(qk_norm="head"), nn.Linear(8, 3)
            self.norm = nn.RMSNorm(8, eps=1e-6)
            for p in (self.layer.self_attn.o_proj, self.layer.mlp.down_proj, self.head):
                nn.init.zeros_(p.weight)

        def forward(self, x):
            return self.head(self.norm(self.layer(x)))

    expected = {f"layer.self_attn.{n}_proj.weight": BLOCK for n in "qk"}
    return Start(), sequence(), expected | {"layer.self_attn.o_proj.weight": NOT, "head.weight": NOT}
