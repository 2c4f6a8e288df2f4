"""What TorchScript's code does with numbers, texts and lists: the operations that are Python's own there."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

TYPES = ("Tensor", "int", "float", "bool", "str", "number", "NoneType", "Device", "List", "Dict", "Tuple", "Optional")
DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64, None,
    torch.complex64, torch.complex128, torch.bool, None, None, None, torch.bfloat16,
)  # fmt: skip

LARGEST = 1 << 20


class Raised(ValueError):
    """The code itself says that the inputs do not fit."""


def size(x: Any, axis: int | None = None) -> Any:
    """Sizes of a tensor, or one of them."""
    sizes = [int(n) if isinstance(n, int) else n for n in x.shape]
    return sizes if axis is None else sizes[axis]


def appended(items: list[Any], value: Any) -> list[Any]:
    """Lists grow in place."""
    items.append(value)
    return items


def sliced(items: Any, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """Part of a list or text."""
    return items[start:end:step]


def extended(items: list[Any], more: Any) -> list[Any]:
    """The same of several."""
    items.extend(more)
    return items


def power(a: Any, b: Any) -> Any:
    """A power of numbers, of moderate size."""
    if abs(a) > LARGEST or abs(b) > 64:
        raise ValueError("a power beyond all sizes")
    return a**b


def product(a: Any, b: Any) -> Any:
    """A product of numbers."""
    if isinstance(a, (list, tuple, str)) or isinstance(b, (list, tuple, str)):
        raise ValueError("a list is repeated")
    return a * b


def divided(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """A quotient, whole if a rounding is asked for."""
    return a / b if rounding_mode is None else a // b if rounding_mode == "floor" else int(a / b)


NUMBERS: dict[str, Callable[..., Any]] = {
    "size": size, "dim": lambda x: x.dim(), "len": len, "add": operator.add, "sub": operator.sub, "mul": product,
    "div": divided, "floordiv": operator.floordiv, "remainder": operator.mod, "neg": operator.neg,
    "pow": power, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "__is__": operator.is_, "__isnot__": operator.is_not,
    "__not__": operator.not_, "__and__": operator.and_, "__or__": operator.or_, "__getitem__": operator.getitem,
    "__contains__": lambda items, one: one in items, "append": appended, "extend": extended, "slice": sliced,
    "list": list, "format": lambda text, *args: text, "ceil": math.ceil, "floor": math.floor, "sqrt": math.sqrt,
    "log": math.log, "Int": int, "Float": float, "Bool": bool, "__range_length": lambda a, b, s: len(range(a, b, s)),
    "__derive_index": lambda i, start, step: start + i * step, "keys": list, "values": lambda d: list(d.values()),
    "items": lambda d: list(d.items()), "abs": abs, "min": min, "max": max, "str": str,
}  # fmt: skip


def plain_call(name: str, args: list[Any]) -> Any:
    """One of Python's own functions, or of ops.prim; ValueError for others."""
    match name:
        case "RaiseException":
            raise Raised(f"the code raises: {args[0] if args else ''}")
        case "NumToTensor" | "int" | "float" | "bool" | "str":
            if isinstance(args[0], torch.Tensor):
                raise ValueError("a number that the data decide")
            kinds = {"int": int, "float": float, "bool": bool, "str": str}
            return args[0] if name == "NumToTensor" else kinds[name](args[0])
        case "range":
            return range(*args)
        case "min" | "max":
            return (min if name == "min" else max)(*args)
        case "len":
            return len(args[0])
        case "device":
            return args[0].device
        case "dtype":
            return DTYPES.index(args[0].dtype)
        case "is_nested" | "is_cuda" | "is_quantized" | "is_sparse" | "is_mkldnn":
            return False
        case "unchecked_unwrap_optional":
            return args[0]
        case "isinstance":
            raise ValueError("asks for the type of a value")
        case _:
            raise ValueError(f"calls {name}")
