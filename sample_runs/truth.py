"""The truth of a sample run, logged in float64 while it trains: norms, angles and unit gradients at every step.

Layout of the file that `Truth.save` writes: README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Truth:
    """Watches every trained tensor of two dimensions or more, each cut into equal units along its first axis.

    `units` maps a tensor's name to its number of units where that is not its first dimension (heads); the tensors named
    in `apart` are logged unit by unit, the others as a whole, with the root mean square over units of the angle.
    Row t of an array is step t: the state after the update that led to it, and that update's angle, gradient and
    learning rate; row 0 is the initial state, NaN where it needs an update.
    """

    def __init__(self, model: nn.Module, steps: int, apart: Collection[str], units: Mapping[str, int]) -> None:
        self._tensors = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
        self._units = {name: units.get(name, len(p)) for name, p in self._tensors.items()}
        self._apart = {name: self._units[name] for name in apart}
        self.names = tuple(self._tensors)
        self._log = {
            name: {key: np.full((steps + 1, self._apart.get(name, 0) + 1), np.nan) for key in KEPT}
            for name in self.names
        }  # column 0 the whole tensor, then its units if they are logged apart
        self._unit_angle = {name: np.full(steps + 1, np.nan) for name in self.names}
        self.learning_rate = np.full(steps + 1, np.nan)
        self.loss = np.full(steps + 1, np.nan)
        self._before = self._weights()
        for name, weight in self._before.items():
            self._put(name, "norm", 0, np.sqrt(_with_whole((weight * weight).sum(1))))
        self._saved: dict[str, torch.Tensor] = {}
        self._checkpoints: list[tuple[int, list[float], list[float]]] = []

    def record(self, step: int, learning_rate: float, loss: float) -> None:
        """After the optimizer's step number `step`, while the gradients of the loss (without decay) still stand."""
        self.learning_rate[step], self.loss[step] = learning_rate, loss
        after = self._weights()
        for name, v in after.items():
            u = self._before[name]
            gradient = self._tensors[name].grad
            if gradient is None:
                raise ValueError(f"{name} has no gradient: record() comes before zero_grad()")
            g = gradient.detach().double().reshape(v.shape)
            d = v - u
            uu, vv, dd, dv, gg = (_with_whole((a * b).sum(1)) for a, b in ((u, u), (v, v), (d, d), (d, v), (g, g)))
            angles = _angle(uu, vv, dd, dv)
            self._put(name, "norm", step, np.sqrt(vv))
            self._put(name, "angle", step, angles)
            self._put(name, "gradient", step, uu * gg)
            self._unit_angle[name][step] = np.sqrt(np.mean(angles[1:] ** 2))
        self._before = after

    def checkpoint(self, step: int) -> None:
        """When the state after `step` is saved: norms, and the angle from the checkpoint saved before."""
        now = self._weights()
        norms = [float(w.norm()) for w in now.values()]
        angles = [_kahan(self._saved[name], w) if self._saved else np.nan for name, w in now.items()]
        self._checkpoints.append((step, norms, angles))
        self._saved = now

    def save(self, path: Path, **settings: np.ndarray | float) -> None:
        """Write everything, and `settings` as they are given, as one compressed .npz."""
        arrays: dict[str, np.ndarray] = {key: np.asarray(value) for key, value in settings.items()}
        arrays["tensors"] = np.array(self.names)
        arrays["learning_rate"], arrays["loss"] = self.learning_rate, self.loss.astype(np.float32)
        arrays["unit_angle"] = _float32(np.stack([self._unit_angle[name] for name in self.names], axis=1))
        for key, rounded in KEPT.items():
            arrays[key] = rounded(np.stack([self._log[name][key][:, 0] for name in self.names], axis=1))
            for name in self._apart:
                arrays[f"{name}:{key}"] = rounded(self._log[name][key][:, 1:])
        steps, norms, angles = zip(*self._checkpoints, strict=True)
        arrays["checkpoint_step"] = np.array(steps)
        arrays["checkpoint_norm"], arrays["checkpoint_angle"] = np.array(norms), np.array(angles)
        np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]  (numpy's stub of **kwds)

    def _put(self, name: str, key: str, step: int, values: np.ndarray) -> None:
        """Keep as many of [whole, units…] as are logged."""
        log = self._log[name][key]
        log[step] = values[: log.shape[1]]

    def _weights(self) -> dict[str, torch.Tensor]:
        """Float64 copies, [units, elements of a unit]."""
        return {name: p.detach().double().reshape(self._units[name], -1) for name, p in self._tensors.items()}


def _with_whole(sums: torch.Tensor) -> np.ndarray:
    """Sums over the units [units] -> [whole, units…]."""
    return np.concatenate([[float(sums.sum())], sums.numpy()])


def _angle(uu: np.ndarray, vv: np.ndarray, dd: np.ndarray, dv: np.ndarray) -> np.ndarray:
    """Angle between u and v from Σu², Σv², Σ(v−u)², Σ(v−u)v: 4e-14 relative where the norm changes little."""
    lengths = np.sqrt(uu), np.sqrt(vv)
    radial = (2 * dv - dd) / (lengths[0] + lengths[1])  # ‖v‖ − ‖u‖ without cancellation
    chord = np.sqrt(np.maximum(dd - radial**2, 0) / (lengths[0] * lengths[1]))
    return 2 * np.arcsin(np.minimum(chord / 2, 1))


def _kahan(u: torch.Tensor, v: torch.Tensor) -> float:
    """Angle between two float64 tensors, stable at every size (Kahan)."""
    a, b = u / u.norm(), v / v.norm()
    return float(2 * torch.atan2((a - b).norm(), (a + b).norm()))


def _float32(values: np.ndarray) -> np.ndarray:
    """Float32: 6e-8 relative."""
    return values.astype(np.float32)


def _short(values: np.ndarray) -> np.ndarray:
    """Float32 rounded to 12 significant bits (1.2e-4 relative): it packs into half the bytes."""
    bits = np.nan_to_num(values).astype(np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(1 << 11)) & np.uint32(0xFFFFF000)).view(np.float32)
    return np.where(np.isnan(values), np.float32(np.nan), rounded)


KEPT = {"norm": _float32, "angle": _float32, "gradient": _short}  # what is logged, and how it is written
