"""Training-like sequences of checkpoints, the same for the same seed: w ← (1−d)·w + noise + drift.

Usage: python cases.py a|d FOLDER
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

Shapes = dict[str, tuple[int, ...]]
SEED = 0


def resnet50() -> Shapes:
    """Names and shapes of torchvision's ResNet-50 (25.6 M parameters)."""
    shapes: Shapes = {}

    def conv(name: str, out: int, into: int, size: int) -> None:
        shapes[f"{name}.weight"] = (out, into, size, size)

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    into = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for i, (out, wide, size) in enumerate([(width, into, 1), (width, width, 3), (4 * width, width, 1)], 1):
                conv(f"{name}.conv{i}", out, wide, size)
                norm(f"{name}.bn{i}", out)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, into, 1)
                norm(f"{name}.downsample.1", 4 * width)
            into = 4 * width
    shapes["fc.weight"], shapes["fc.bias"] = (1000, 2048), (1000,)
    return shapes


def small() -> Shapes:
    """A multilayer perceptron with layer norms, 80 k parameters."""
    shapes: Shapes = {}
    into = 96
    for layer in range(6):
        shapes[f"layers.{layer}.linear.weight"], shapes[f"layers.{layer}.linear.bias"] = (112, into), (112,)
        shapes[f"layers.{layer}.norm.weight"], shapes[f"layers.{layer}.norm.bias"] = (112,), (112,)
        into = 112
    shapes["head.weight"], shapes["head.bias"] = (28, 112), (28,)
    return shapes


CASES = {"a": (resnet50, 20, ".pt"), "d": (small, 2000, ".safetensors")}


def generate(case: str, folder: Path) -> None:
    """Write the sequence of a case into a folder, one file per checkpoint."""
    make, count, suffix = CASES[case]
    shapes = make()
    random = np.random.default_rng(SEED)
    weights = {name: start(name, shape, random) for name, shape in shapes.items()}
    largest = max(math.prod(shape) for shape in shapes.values())
    noise = random.standard_normal(largest + 100_003, dtype=np.float32)
    drift = {name: int(random.integers(100_000)) for name in shapes}
    for t in range(count):
        rate = 0.02 * (0.05 + 0.475 * (1 + math.cos(math.pi * t / count)))
        if t:
            for name, w in weights.items():
                if w.dtype == np.int64:
                    w += 100
                    continue
                scale = np.float32(rate / math.sqrt(max(1, math.prod(w.shape[1:]))))
                at = int(random.integers(100_000))
                w *= np.float32(1 - 1e-3)
                w += scale * noise[at : at + w.size].reshape(w.shape)
                w += np.float32(0.3) * scale * noise[drift[name] : drift[name] + w.size].reshape(w.shape)
        path = folder / f"checkpoint_{100 * (t + 1):07d}{suffix}"
        write_torch(path, weights) if suffix == ".pt" else write_safetensors(path, weights)


def start(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    if not shape:
        return np.zeros((), np.int64)
    if len(shape) == 1:
        ones = name.endswith(("norm.weight", "running_var")) or (".bn" in name and name.endswith("weight"))
        return np.float32(ones) + np.float32(0.01) * random.standard_normal(shape, dtype=np.float32)
    return random.standard_normal(shape, dtype=np.float32) / np.float32(math.sqrt(math.prod(shape[1:])))


def write_torch(path: Path, weights: dict[str, np.ndarray]) -> None:
    import torch

    torch.save({name: torch.from_numpy(np.asarray(w)) for name, w in weights.items()}, path)


def write_safetensors(path: Path, weights: dict[str, np.ndarray]) -> None:
    header, at = {}, 0
    for name, w in weights.items():
        kind = "I64" if w.dtype == np.int64 else "F32"
        header[name] = {"dtype": kind, "shape": w.shape, "data_offsets": [at, at + w.nbytes]}
        at += w.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *(w.tobytes() for w in weights.values())]))


if __name__ == "__main__":
    generate(sys.argv[1], Path(sys.argv[2]))
