"""A model of jax: what --model's factory returned, traced to a jaxpr and built anew as a module. Needs jax itself.

Taken are (function, parameters) and (function, parameters, inputs), the function called as function(parameters,
*inputs) as it is in training, and modules of flax.linen, which are initialised without computing anything.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from smd_analyze.errors import MissingLibrary, UsageError
from smd_analyze.invariance.sources.base import Built
from smd_analyze.invariance.sources.jaxpr_equations import flattened
from smd_analyze.invariance.sources.jaxpr_network import Network
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import LazyTensor

TRAINING = {"train": True, "training": True, "is_training": True, "deterministic": False,
            "use_running_average": False}  # fmt: skip
FORMS = "(function, parameters), (function, parameters, inputs) or a flax.linen module"


def is_of_jax(made: Any) -> bool:
    """Whether a factory's result is a model of jax."""
    if isinstance(made, tuple) and len(made) in (2, 3) and callable(made[0]):
        return True
    return is_linen(made)


def is_linen(made: Any) -> bool:
    """A module of flax.linen, told by its class without importing flax."""
    return any(c.__module__.startswith("flax.linen") and c.__name__ == "Module" for c in type(made).__mro__)


def build(made: Any, inputs: Any, label: str, tensors: Mapping[str, LazyTensor]) -> Built:
    """The model as a torch module. `inputs`: positional and keyword, or None.

    Raises UsageError if it cannot be traced.
    """
    try:
        import jax  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingLibrary(
            f"--model {label}: following a model of jax needs jax: pip install 'smd-analyze[jax]'"
        ) from None
    args, named = inputs if inputs is not None else ((), {})
    if isinstance(made, tuple) and len(made) == 3 and inputs is None:
        args = made[2] if isinstance(made[2], (tuple, list)) else (made[2],)
    if not args and not named:
        raise UsageError(f"--model {label}: a model of jax does not tell its inputs; give them with --inputs")
    args = tuple(as_jax(jax, x) for x in args)
    try:
        function, parameters, data = called(jax, made, args, dict(named))
        leaves = jax.tree_util.tree_flatten_with_path(parameters)[0]
        closed = jax.make_jaxpr(function)(parameters, *data)
    except (MissingLibrary, UsageError):
        raise
    except Exception as problem:  # the model's own code runs here
        reason = f"{type(problem).__name__}: {problem}".strip().splitlines()[0][:160]
        raise UsageError(
            f"--model {label}: jax cannot trace it ({reason}); let it return {FORMS} that --inputs fits"
        ) from problem
    names = [module_name(path) for path, leaf in leaves]
    if len(set(names)) < len(names) or not names:
        raise UsageError(f"--model {label}: its parameters have no names of their own; let it return {FORMS}")
    network = Network(flattened(closed), names, label)
    example = tuple(as_torch(x) for x in jax.tree_util.tree_leaves(data))
    with torch.no_grad():
        try:
            network(*example)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]
            raise UsageError(f"--model {label}: its jaxpr cannot be followed ({reason})") from problem
    findings = tuple(
        Finding("layer-not-known", "note", label, f"{what} ({count} of them) is not known: nothing is proved of what "
                "goes into it", "Weights before it may be invariant unproved.")
        for what, count in network.unknown.items()
    )  # fmt: skip
    return Built(network, label, (example, {}), matched(names, tensors), network.orders, findings)


def called(jax: Any, made: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Callable[..., Any], Any, tuple]:
    """(function, its parameters, what else it is called with)."""
    if not is_linen(made):
        function, parameters = made[0], made[1]
        return (partial(function, **named) if named else function), parameters, args
    given = inspect.signature(type(made).__call__).parameters
    flags = {k: v for k, v in TRAINING.items() if k in given and k not in named}
    keys = {k: jax.random.PRNGKey(i) for i, k in enumerate(("params", "dropout", "default"))}
    variables = dict(jax.eval_shape(lambda: made.init(keys, *args, **named, **flags)))
    parameters = variables.pop("params", {})

    def run(parameters: Any, state: Any, *args: Any) -> Any:
        found = made.apply(
            {"params": parameters, **state}, *args, **named, **flags, mutable=list(state) or False, rngs=keys
        )
        return found[0] if state else found

    return run, parameters, (variables, *args)


def module_name(path: Iterable[Any]) -> str:
    """A leaf's place in the tree as a module's name: ("Conv_0", "kernel") → "Conv_0.kernel"."""
    words = [str(next(getattr(k, a) for a in ("key", "name", "idx") if hasattr(k, a))) for k in path]
    return ".".join(re.sub(r"\W", "_", w) for w in words) or "weight"


def matched(names: Iterable[str], tensors: Mapping[str, LazyTensor]) -> dict[str, str]:
    """Run's name → the model's: the same words up to what stands before them (params/, model.)."""
    own = {tuple(n.split(".")): n for n in names}
    found: dict[str, str] = {}
    for run in tensors:
        words = tuple(re.sub(r"\W", "_", w) for w in re.split(r"[./\[\]]+", run) if w)
        for start in range(len(words)):
            if words[start:] in own:
                found[run] = own[words[start:]]
                break
    counts = Counter(found.values())
    return {run: name for run, name in found.items() if counts[name] == 1}


def as_jax(jax: Any, x: Any) -> Any:
    """An example input for jax: a torch tensor becomes an array."""
    return jax.numpy.asarray(x.detach().numpy()) if isinstance(x, torch.Tensor) else x


def as_torch(x: Any) -> torch.Tensor:
    """An example input, or a state that is a shape only, as torch has it."""
    kind = str(x.dtype)
    if kind.startswith(("int", "uint", "bool")):
        return torch.ones(tuple(x.shape), dtype=torch.bool if kind == "bool" else torch.long)
    return torch.randn(tuple(x.shape), generator=torch.Generator().manual_seed(0))


__all__ = ["FORMS", "build", "is_of_jax"]
