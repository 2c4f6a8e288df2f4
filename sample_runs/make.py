"""Two small runs that were really trained, on scikit-learn's handwritten digits. One command remakes both, bit for bit.

    python sample_runs/make.py [resnet_sgdm qknorm_adamw]

The models are also for the analysis:

    smd-analyze sample_runs/resnet_sgdm --model sample_runs/make.py:resnet --inputs sample_runs/make.py:resnet_inputs
"""

from __future__ import annotations

import shutil
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).resolve().parent


class Block(nn.Module):
    """Residual block: two bias-free convolutions, each before its BatchNorm; a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H/stride, W/stride]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A BatchNorm ResNet for 8 × 8 images: every convolution is scale-invariant per filter, the classifier is not."""

    def __init__(self, widths: tuple[int, int] = (16, 20), classes: int = 10) -> None:
        super().__init__()
        first, second = widths
        self.conv1 = nn.Conv2d(1, first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = Block(first, first, 1)
        self.layer2 = Block(first, second, 2)
        self.fc = nn.Linear(second, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 1, 8, 8] -> logits [N, classes]."""
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


class RMSNorm(nn.Module):
    """x / rms(x) × weight, over the last axis."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[…, size] -> the same shape."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    """Causal attention, rotary positions; an RMSNorm on every head's query and key, so their scale has no effect."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, hidden // heads
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, hidden, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)
        self.q_norm = RMSNorm(self.head_dim)
        self.k_norm = RMSNorm(self.head_dim)

    def forward(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """[N, T, hidden] -> the same shape; `rotary` is cos and sin, [T, head_dim] each."""
        n, t, hidden = x.shape
        shape = (n, t, self.heads, self.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2), *rotary)
        k = rotate(self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2), *rotary)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(n, t, hidden))


class MLP(nn.Module):
    """Gated MLP: down(silu(gate(x)) × up(x))."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, hidden] -> the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = Attention(hidden, heads)
        self.mlp = MLP(hidden, inner)
        self.input_layernorm = RMSNorm(hidden)
        self.post_attention_layernorm = RMSNorm(hidden)

    def forward(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """[N, T, hidden] -> the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), rotary)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, decoder layers, final norm: what the Hugging Face layout calls `model`."""

    def __init__(self, vocabulary: int, hidden: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(DecoderLayer(hidden, heads, inner) for _ in range(layers))
        self.norm = RMSNorm(hidden)
        self.head_dim = hidden // heads

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[N, T] -> [N, T, hidden]."""
        half = self.head_dim // 2
        rates = 100.0 ** (-torch.arange(half, device=input_ids.device) / half)
        turns = torch.arange(input_ids.shape[1], device=input_ids.device)[:, None] * rates
        rotary = torch.cat([turns.cos()] * 2, -1), torch.cat([turns.sin()] * 2, -1)
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, rotary)
        return self.norm(x)


class CausalLM(nn.Module):
    """Decoder and an untied head."""

    def __init__(self, vocabulary: int, hidden: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        self.model = Decoder(vocabulary, hidden, heads, inner, layers)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[N, T] -> logits [N, T, vocabulary]."""
        return self.lm_head(self.model(input_ids))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of [N, heads, T, head_dim]."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


# Tokens 28 to 31 are never used: they pad the vocabulary, as language models do.
SIZES = {"vocabulary": 32, "hidden": 32, "heads": 4, "inner": 48, "layers": 2}


def resnet() -> ResNet:
    """The model of resnet_sgdm, freshly initialised."""
    return ResNet()


def resnet_inputs() -> tuple[torch.Tensor]:
    """A batch for it: random images."""
    return (torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


def qknorm() -> CausalLM:
    """The model of qknorm_adamw, freshly initialised."""
    return CausalLM(**SIZES)


def qknorm_inputs() -> tuple[torch.Tensor]:
    """A batch for it: random tokens."""
    return (torch.randint(28, (4, 16), generator=torch.Generator().manual_seed(0)),)


def main(names: list[str]) -> int:
    """Remake the named runs, or all."""
    from training import train_qknorm, train_resnet  # beside this file: a script has its folder on the path, a user not

    runs = {"resnet_sgdm": partial(train_resnet, resnet), "qknorm_adamw": partial(train_qknorm, qknorm, SIZES)}
    unknown = [name for name in names if name not in runs]
    if unknown:
        print(f"no run called {', '.join(unknown)}; there are {', '.join(runs)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in names or runs:
        folder = HERE / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        start = time.perf_counter()
        print(f"{name}: {runs[name](folder)}, {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
