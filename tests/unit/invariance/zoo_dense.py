"""Dense networks of the zoo, and operations that break or keep an invariance."""

import torch
import torch.nn.functional as F
from torch import nn
from zoo_parts import (
    DEAD,
    JOINT_UNIT,
    JOINT_WHOLE,
    NOT,
    UNIT,
    WHOLE,
    Net,
    entry,
    vector,
)


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

    expected = {"a.weight": JOINT_WHOLE, "shift": JOINT_WHOLE, "b.weight": WHOLE, "shift2": DEAD}
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

    return Merged(), vector(), {"w": JOINT_WHOLE, "a": NOT, "b": JOINT_WHOLE}


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
    return net, vector(), {"a.weight": JOINT_WHOLE, "b.weight": JOINT_WHOLE}


@entry
def opaque_operation():
    def run(m, x):
        h = torch.linalg.svdvals(m.a(x))
        return m.out(m.ln(h))

    net = Net(run, a=nn.Linear(7, 8, bias=False), ln=nn.LayerNorm(6), out=nn.Linear(6, 3))
    return net, vector(), {"a.weight": NOT, "out.weight": NOT}
