"""How long the graph of a large model takes: tracing, the calculus alone and joint, matching.

Usage: python benchmarks/invariance.py [--layers 170] [--width 64] [--profile]

The model is a pre-norm transformer with a norm on queries and keys: about six parameters and sixty operations a layer;
170 layers are some 10,000 nodes and 1,500 parameters. Nothing is trained and no number is looked at.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time

import torch
from torch import nn
from torch.nn import functional

from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.rules import RULES
from smd_analyze.invariance.tracing import trace
from smd_analyze.invariance.walking import walk
from smd_analyze.records.run import Checkpoint, LazyTensor, Run


class Norm(nn.Module):
    """Root-mean-square normalization with a gain, written out as models of today do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Over the last axis."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Layer(nn.Module):
    """Attention with normalized queries and keys, and a gated MLP, both on the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = Norm(width), Norm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = Norm(width // heads), Norm(width // heads)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer."""
        h = self.before(x)
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(-2))
        h = self.between(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    """Embedding, layers, norm, head."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(512, width)
        self.layers = nn.ModuleList(Layer(width, 4) for _ in range(layers))
        self.norm, self.head = Norm(width), nn.Linear(width, 512, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def main() -> None:
    """Print a table of seconds."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--layers", type=int, default=170)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--profile", action="store_true", help="where the calculus spends its time")
    given = options.parse_args()
    with torch.device("meta"):
        model = Model(given.layers, given.width)
        inputs = (torch.zeros(2, 8, dtype=torch.long),)
    clock = time.process_time()
    graph = trace(model, inputs, {}, "model")
    rows = [("trace (torch.export)", time.process_time() - clock)]
    names = {n: i for i, n in enumerate(dict.fromkeys(graph.aliases.values()))}
    profiler = cProfile.Profile()
    clock = time.process_time()
    walk(graph, RULES, names.__getitem__)
    rows.append(("walk, every parameter alone", time.process_time() - clock))
    clock = time.process_time()
    if given.profile:
        profiler.enable()
    analyse(graph)
    profiler.disable()
    rows.append(("all verdicts, joint sets included", time.process_time() - clock))
    tensors = {n: LazyTensor(tuple(p.shape), "float32", _never) for n, p in model.named_parameters()}
    run = Run("run", (Checkpoint(1, "1", "none", "plain", tensors),), "name", "optimizer steps")
    clock = time.process_time()
    find_groups(run)
    rows.append(("names only, no graph", time.process_time() - clock))
    print(f"{len(tensors)} parameters, {len(graph.nodes)} nodes, torch {torch.__version__}, CPU seconds")
    for name, seconds in rows:
        print(f"{seconds:8.2f}  {name}")
    if given.profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(35)


def _never() -> None:
    raise AssertionError("no tensor is read")


if __name__ == "__main__":
    main()
