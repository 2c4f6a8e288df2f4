"""What a careful user writes today: keep the previous state dict, norms and angles per tensor and per row, in doubles.

Usage: python script.py FOLDER RESULT.npz
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

previous = None
norms: dict[str, list[float]] = {}
angles: dict[str, list[float]] = {}
rows = []
for path in sorted(Path(sys.argv[1]).iterdir()):
    current = torch.load(path, map_location="cpu") if path.suffix == ".pt" else load_file(path)
    for name, w in current.items():
        if not w.is_floating_point() or w.dim() < 2:
            continue
        v = w.flatten().double()
        norms.setdefault(name, []).append(v.norm().item())
        if previous is not None:
            u = previous[name].flatten().double()
            cosine = torch.dot(u, v) / (u.norm() * v.norm())
            angles.setdefault(name, []).append(torch.acos(cosine.clamp(-1, 1)).item())
            x, y = previous[name].flatten(1).double(), w.flatten(1).double()
            rows.append((torch.acos(F.cosine_similarity(x, y, dim=1).clamp(-1, 1)).mean().item(), y.norm(dim=1)))
    previous = current
np.savez(sys.argv[2], names=list(norms), norms=list(norms.values()), angles=list(angles.values()))
