"""Python text as data: parsed, never run. Only what is written out is known; names and calls are words."""

from __future__ import annotations

import ast
import warnings
from typing import Any

from smd_analyze.errors import DamagedFile


def parsed(text: str, path: str, mode: str = "exec") -> ast.AST:
    """The syntax tree; DamagedFile if it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(text, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise DamagedFile(f"{path}: cannot be parsed as Python: {problem}") from None


def literal(node: ast.AST | None, names: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """Numbers, words, lists, dicts, dict(…) and argparse's Namespace(…); products of numbers; None for all else."""
    known = names or {}
    if depth > 40:
        return None
    match node:
        case ast.Constant(value=value) if isinstance(value, str | int | float):
            return value
        case ast.Name(id=name):
            return known.get(name)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [literal(p, known, depth + 1) for p in parts]
        case ast.Dict(keys=keys, values=values):
            pairs = ((literal(k, known), v) for k, v in zip(keys, values, strict=True))
            return {k: literal(v, known, depth + 1) for k, v in pairs if isinstance(k, str | int)}
        case ast.Call(func=ast.Name(id="dict" | "Namespace" | "ConfigDict"), args=[], keywords=pairs):
            return {k.arg: literal(k.value, known, depth + 1) for k in pairs if k.arg}
        case ast.Attribute(attr=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = literal(inner, known, depth + 1)
            return -value if isinstance(value, int | float) else None
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as operator, right=right):
            a, b = literal(left, known, depth + 1), literal(right, known, depth + 1)
            if not isinstance(a, int | float) or not isinstance(b, int | float):
                return None
            return a * b if isinstance(operator, ast.Mult) else (a / b if b else None)
    return None
