"""The points of the numeric check: random inputs and weights, and w·∂y/∂w of every parameter there.

By Euler's theorem y is invariant under w → a·w exactly if Σ w·∂y/∂w = 0 for every output, input and weight. One
backward pass of a random projection of the outputs gives the products of all parameters at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from smd_analyze.invariance.tracing import quiet, read_outputs
from smd_analyze.invariance.verifying_exact import Exact, shrink_eps

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]
Products = dict[str, torch.Tensor]
SEED = 20
COPIES = 4  # of the weights in float64 at a time: weights, gradients, products, and about as much in between


@dataclass(frozen=True)
class Point:
    """Where the model is probed.

    With `spread` weights are redrawn around the checkpoint's and each tensor is scaled by 1 to `spread` at random:
    saturating functions that never saturate at the checkpoint would fake an invariance. None: as the checkpoint has
    them, with the model's own eps. `dropout`: masks are drawn, as in training.
    """

    name: str
    spread: float | None
    dropout: bool = False


POINTS = (
    Point("generic", 1.0), Point("generic, dropout", 1.0, dropout=True), Point("scaled", 10.0),
    Point("scaled, dropout", 30.0, dropout=True),
)  # fmt: skip
REAL = Point("real", None)
TINY_EPS = 1e-30


class Probe:
    """A copy of the model in float64 and training mode, with the run's weights where `weights` has them."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, weights: Mapping[str, Callable[[], torch.Tensor]],
        frozen: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.model = copy.deepcopy(model).double().train()
        for path in frozen:
            self.model.get_submodule(path).eval()
        config = getattr(self.model, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False  # pyright: ignore[reportOptionalMemberAccess]
        self.parameters = dict(self.model.named_parameters())
        self.inputs = inputs
        for parameter in self.parameters.values():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        with torch.no_grad():
            for name, read in weights.items():
                if name in self.parameters:
                    self.parameters[name].copy_(read())
        self.start = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.buffers = {n: b.detach().clone() for n, b in self.model.named_buffers()}
        self.saved = set(self.model.state_dict(keep_vars=True))
        self.rows = self._vocabularies()

    def products(
        self, point: Point, number: int, eps: float = TINY_EPS, stretched: Mapping[str, float] | None = None
    ) -> Products:
        """w·∂y/∂w for a random projection of the outputs, name by name; what has no gradient is zero.

        `number` seeds weights, inputs and projection; every eps becomes `eps`; `stretched` tensors are multiplied by a
        factor on top. Raises what the model's own code raises, and ValueError if it returns no finite numbers.
        """
        with torch.random.fork_rng(devices=[]), _double():
            torch.manual_seed(SEED + number)
            self._place(point, stretched or {})
            args, kwargs = _pytree.tree_map(self._draw(number), self.inputs)
            own_eps = shrink_eps(self.model, eps) if point.spread else []
            try:
                with quiet(), Exact(eps if point.spread else None, point.dropout):
                    outputs, _ = read_outputs(self.model(*args, **kwargs))
                    total = sum((_real(y) * torch.randn_like(_real(y))).sum() for y in outputs if y.requires_grad)
                    if not isinstance(total, torch.Tensor):
                        raise ValueError("no output depends on a parameter")
                    if not bool(torch.isfinite(total)):
                        raise ValueError("the output is not finite")
                    names = [n for n, p in self.parameters.items() if p.requires_grad]
                    wanted = [self.parameters[n] for n in names]
                    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
            finally:
                for module, name, value in own_eps:
                    setattr(module, name, value)
        found = {n: torch.zeros(p.shape) for n, p in self.parameters.items() if p.numel() == 0}
        for n, p, g in zip(names, wanted, gradients, strict=True):
            found[n] = torch.zeros_like(p) if g is None else _real_product(g, p.detach())
        if not all(bool(torch.isfinite(p).all()) for p in found.values()):
            raise ValueError("a gradient is not finite")
        return found

    def _place(self, point: Point, stretched: Mapping[str, float]) -> None:
        """Weights of the point; buffers as they were, but for saved ones: what training fills is not known either."""
        with torch.no_grad():
            for n, b in self.model.named_buffers():
                b.copy_(self.buffers[n])
                if point.spread is not None and n in self.saved and b.is_floating_point() and b.numel():
                    b.mul_(torch.exp(0.3 * torch.randn_like(b)))
                    if not bool((b > 0).all()):  # a variance stays positive
                        b.add_(0.3 * torch.randn_like(b))
            for n, p in self.parameters.items():
                p.copy_(self.start[n])
                if point.spread is not None and p.requires_grad:
                    p.add_(torch.randn_like(p) * _noise(self.start[n]))
                    p.mul_(math.exp(math.log(point.spread) * float(torch.rand(()))))
                if n in stretched:
                    p.mul_(stretched[n])

    def _draw(self, number: int) -> Callable[[Any], Any]:
        """Random inputs of the same shape; token numbers walk through their whole table, other integers are turned."""

        def drawn(x: Any) -> Any:
            if not isinstance(x, torch.Tensor) or x.is_meta:
                return torch.randn(x.shape) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
            if x.is_floating_point():
                return torch.randn(x.shape)
            if x.is_complex():
                return torch.randn(x.shape, dtype=torch.complex128)
            rows = self.rows.get(id(x))
            if rows and number >= 0:
                order = torch.randperm(rows, generator=torch.Generator().manual_seed(SEED))
                return order[(torch.arange(x.numel()) + number * x.numel()) % rows].reshape(x.shape).to(x.dtype)
            return x.roll(number, 0) if x.ndim else x

        return drawn

    def _vocabularies(self) -> dict[int, int]:
        """id of an integer input → rows of the smallest table that it is looked up in."""
        leaves = [x for x in _pytree.tree_leaves(self.inputs) if isinstance(x, torch.Tensor) and not x.is_meta]
        at = {x.data_ptr(): x for x in leaves if not x.is_floating_point() and not x.is_complex() and x.numel()}
        found: dict[int, int] = {}

        def seen(module: nn.Embedding, arguments: Sequence[Any]) -> None:
            x = at.get(arguments[0].data_ptr()) if arguments and isinstance(arguments[0], torch.Tensor) else None
            if x is not None:
                found[id(x)] = min(module.num_embeddings, found.get(id(x), module.num_embeddings))

        hooks = [m.register_forward_pre_hook(seen) for m in self.model.modules() if isinstance(m, nn.Embedding)]
        if at and hooks:
            args, kwargs = _pytree.tree_map(
                lambda x: torch.randn(x.shape) if isinstance(x, torch.Tensor) and x.is_floating_point() else x,
                self.inputs,
            )
            with torch.random.fork_rng(devices=[]), _double(), torch.no_grad(), quiet(), Exact(None):
                self.model(*args, **kwargs)
        for hook in hooks:
            hook.remove()
        return found


class _double:
    """New tensors are float64 meanwhile."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


def _noise(start: torch.Tensor) -> float:
    """Deviation of what is added: half the tensor's own size, and enough to move zeros and ones off their places."""
    size = float(start.abs().square().mean().sqrt()) if start.numel() else 0.0
    least = 0.15 if start.ndim < 2 else 0.3 / math.sqrt(max(start.numel() // max(start.shape[0], 1), 1))
    return max(0.5 * size, least)


def _real(y: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(y) if y.is_complex() else y


def _real_product(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    product = gradient.conj() * weight
    return product.real if product.is_complex() else product
