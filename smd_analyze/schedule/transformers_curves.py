"""The functions behind transformers' LambdaLRs (transformers/optimization.py), by the trainer's name for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def factor(kind: str, state: Mapping[str, float | str]) -> Function | None:
    """f(count) of `transformers cosine` and its kin; None if the kind has other numbers than those that are saved.

    Raises KeyError, ValueError where max_steps is not known.
    """
    total = float(state["max_steps"])
    warm = float(state.get("warmup_steps", 0.0))
    ratio = warm if 0 < warm < 1 else 0.0 if warm else float(state.get("warmup_ratio", 0.0))
    warm = np.ceil(ratio * total) if ratio else warm

    def after(c: np.ndarray) -> np.ndarray:
        return np.clip((c - warm) / max(1.0, total - warm), 0, 1)

    falls: dict[str, Function] = {
        "linear": lambda c: 1 - after(c),
        "cosine": lambda c: 0.5 * (1 + np.cos(np.pi * after(c))),
        "cosine_with_restarts": lambda c: np.where(after(c) < 1, 0.5 * (1 + np.cos(np.pi * (after(c) % 1))), 0.0),
        "constant_with_warmup": np.ones_like,
        "constant": np.ones_like,
        "inverse_sqrt": lambda c: 1 / np.sqrt(np.maximum(c - warm, 0) / (warm or 10_000.0) + 1),
    }
    fall = falls.get(kind.removeprefix("transformers ").rpartition(".")[2].lower())
    if fall is None:
        return None
    if kind.endswith(" constant"):
        return fall
    return lambda c: np.where(c < warm, c / max(1.0, warm), fall(c))
