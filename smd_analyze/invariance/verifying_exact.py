"""A model computed in float64 with eps → 0: what the numeric check needs so that rounding and eps do not blur it.

Models cast to float32 inside their norms and hold eps in attributes, arguments and bare constants. A mode that sees
every torch call of the model's code sets all of them straight, without touching that code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

LARGEST_EPS = 1e-2  # as in the calculus: a larger constant is no eps
EPS_NAME = re.compile(r"(^|_)eps(ilon)?$")
WIDER = {
    torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}  # fmt: skip
EPS_POSITION: dict[Any, int] = {
    F.layer_norm: 4, F.batch_norm: 7, F.group_norm: 4, F.instance_norm: 7, F.rms_norm: 3, F.normalize: 3,
    F.cosine_similarity: 3, torch.layer_norm: 4, torch.batch_norm: 7, torch.group_norm: 4, torch.instance_norm: 7,
    torch.rms_norm: 3, torch.native_layer_norm: 4,
}  # fmt: skip
DROPOUTS = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
    torch.alpha_dropout, torch.feature_dropout,
}  # fmt: skip
NARROWING = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}
ADDING = {torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__}
ROOTS = {torch.sqrt, torch.rsqrt, torch.reciprocal, torch.Tensor.sqrt, torch.Tensor.rsqrt, torch.Tensor.reciprocal}
RECIPROCALS = {torch.Tensor.__rdiv__, torch.Tensor.__rtruediv__}
POWERS = {torch.pow, torch.Tensor.pow, torch.Tensor.__pow__}
QUOTIENTS = {torch.div, torch.true_divide, torch.Tensor.div, torch.Tensor.__truediv__, torch.Tensor.true_divide}


class Exact(TorchFunctionMode):
    """Keeps float64 through the model's casts; `eps` takes the place of every eps; without `dropout` none is drawn.

    An eps that is a bare number is known as in the calculus: up to 0.01, added to something nonnegative, and the sum
    is only divided by. What else happens to the sum sees the number as it stands.
    """

    def __init__(self, eps: float | None, dropout: bool = False) -> None:
        super().__init__()
        self.eps, self.dropout = eps, dropout
        self.sums: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # id(x + eps) → (x + eps, x); holds both alive

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called for every torch function while the mode is on."""
        args, kwargs = list(args), dict(kwargs or {})
        if not self.dropout:
            if func in DROPOUTS:
                return args[0] if args else kwargs["input"]
            if "dropout_p" in kwargs:
                kwargs["dropout_p"] = 0.0
        if func in NARROWING:
            return args[0].double()
        args = [WIDER.get(a, a) if isinstance(a, torch.dtype) else a for a in args]
        if isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs["dtype"] = WIDER.get(kwargs["dtype"], kwargs["dtype"])
        if func is torch.Tensor.type_as and args[0].is_floating_point() and args[1].is_floating_point():
            return args[0]
        if func is F.embedding:  # the padding row's gradient is set to zero although the output depends on it
            kwargs["padding_idx"], args = None, args[:2]
        if self.eps:
            self._set_eps(func, args, kwargs, self.eps)
        out = func(*args, **kwargs)
        if self.eps and func in ADDING and isinstance(out, torch.Tensor):
            self._remember(args, kwargs, out)
        return out

    def _set_eps(self, func: Any, args: list[Any], kwargs: dict[str, Any], eps: float) -> None:
        position = EPS_POSITION.get(func)
        if position is not None:
            if len(args) > position:
                args[position] = eps
            else:
                kwargs["eps"] = eps
        elif func in ROOTS or func in RECIPROCALS or (func in POWERS and _divides(args)):
            args[0] = self._bare(args[0], eps)
        elif func in QUOTIENTS and len(args) > 1:
            args[1] = self._bare(args[1], eps)

    def _bare(self, x: Any, eps: float) -> Any:
        held = self.sums.get(id(x))
        return held[1] + eps if held is not None and held[0] is x else x

    def _remember(self, args: Sequence[Any], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        if len(args) != 2 or kwargs:
            return
        for x, other in (args, args[::-1]):
            number = _number(other)
            if isinstance(x, torch.Tensor) and number is not None and 0 < number <= LARGEST_EPS:
                break
        else:
            return
        if x.is_floating_point() and bool((x.detach() >= 0).all()):
            self.sums[id(out)] = (out, x)


def _number(x: Any) -> float | None:
    """A bare number, or a tensor that holds one and is no parameter."""
    if isinstance(x, torch.Tensor):
        return float(x) if x.numel() == 1 and x.is_floating_point() and not x.requires_grad else None
    return x if isinstance(x, float) else None


def _divides(args: Sequence[Any]) -> bool:
    exponent = args[1] if len(args) > 1 else None
    return isinstance(exponent, (int, float)) and (exponent < 0 or exponent == 0.5)


def shrink_eps(model: nn.Module, eps: float) -> list[tuple[nn.Module, str, float]]:
    """Set every attribute that is named and sized like an eps; returns what to put back."""
    found = [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, float) and EPS_NAME.search(name) and 0 < value <= LARGEST_EPS
    ]
    for module, name, _ in found:
        setattr(module, name, eps)
    return found
