"""What a logged column, tag or key is: a hyperparameter, a count of steps or epochs, or neither."""

from __future__ import annotations

import re
from functools import lru_cache

STEP_KEYS = (
    "global_step", "global_steps", "trainer/global_step", "iteration", "iterations", "iter", "iters", "it",
    "num_updates", "n_updates", "updates", "n_iter", "train_step", "train_steps", "train/step", "train/global_step",
    "step", "steps", "_step", "opt_step",
)  # fmt: skip
EPOCH_KEYS = ("epoch", "epochs", "ep", "train/epoch", "current_epoch", "trainer/epoch")
NOT_THE_RATE = frozenset((
    "min", "minimum", "scheduler", "schedule", "scheduling", "scale", "scaling", "ratio", "mult", "multiplier",
    "factor", "gamma", "decay", "warmup", "final", "end", "finder", "find", "loss", "policy", "power", "patience",
    "drop", "drops", "step", "steps", "epochs", "iters", "type", "mode", "config", "cfg", "monitor", "hook", "cos",
    "cosine", "noise", "cycle", "cooldown", "auto", "range", "milestones", "lower", "bound", "reduce", "reduction",
    "threshold", "div", "update", "interval", "freq", "every", "floor", "stop", "restart", "restarts", "anneal",
    "annealing", "period", "rampup", "rampdown", "sched", "schedules", "schedulers", "plateau", "layerwise",
))  # fmt: skip
AVERAGED = frozenset(("ema", "teacher", "target", "bn", "norm", "batchnorm", "key", "queue", "moco", "avg"))
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=1 << 14)
def words(key: str) -> tuple[str, ...]:
    """`train/learningRate_pg1` → train, learning, rate, pg, 1."""
    return tuple(w.lower() for w in WORD.findall(key))


@lru_cache(maxsize=1 << 14)
def hyperparameter(key: str) -> str | None:
    """learning_rate, weight_decay or momentum, if the key of a log is one, in any trainer's spelling."""
    if len(key) > 200:
        return None
    for part in reversed(key.split("/")):
        found = words(part.removesuffix("_step").removesuffix("_epoch"))
        if found and found[-1] == "momentum" and not AVERAGED & set(words(key)):
            return "momentum"
        if "wd" in found or "weightdecay" in found or follow(found, "weight", "decay"):
            return None if (NOT_THE_RATE - {"decay"}) & set(found) else "weight_decay"
        if is_rate(found):
            return "learning_rate"
    return None


def is_rate(found: tuple[str, ...]) -> bool:
    """A learning rate itself, not something about one (its minimum, decay, schedule …)."""
    named = "lr" in found or "lrs" in found or "learningrate" in found or follow(found, "learning", "rate")
    return named and not NOT_THE_RATE & set(found)


def follow(found: tuple[str, ...], first: str, second: str) -> bool:
    """One word right after another."""
    return any(pair == (first, second) for pair in zip(found, found[1:], strict=False))
