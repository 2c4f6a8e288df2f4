"""What a pickle turns into when nothing is imported and nothing is called: names, spans of bytes, inert objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Name(str):
    """'module qualified.name' of a global, as text."""

    __slots__ = ()


@dataclass(eq=False, slots=True)
class Inert:
    """What a pickle would have built by calling `name` with `args`: never called."""

    name: str
    args: tuple[Any, ...] = field(default=(), repr=False)  # shared parts may unfold without end
    state: Any = field(default=None, repr=False)
    items: dict[Any, Any] = field(default_factory=dict, repr=False)
    sequence: list[Any] = field(default_factory=list, repr=False)

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes, as far as its state is a dict (or a pair of dicts: classes with slots), and its items."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        found = {k: v for k, v in self.items.items() if isinstance(k, str)}
        for part in parts:
            if isinstance(part, dict):
                found.update((k, v) for k, v in part.items() if isinstance(k, str))
        return found


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `stop` of the file that holds the pickle."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Persistent:
    """A persistent id that nobody resolved."""

    key: Any


_HASHABLE = frozenset({str, int, float, bool, bytes, type(None), Name, complex, Inert, Span})


def dict_key(value: Any) -> Any:
    """A dictionary key whose hash is cheap and cannot recurse; anything deeper is wrapped in an Inert."""
    kind = type(value)
    if kind in _HASHABLE or (kind is tuple and all(type(v) in _HASHABLE for v in value)):
        return value
    return Inert("key", (value,))


def inert_call(name: str, args: tuple[Any, ...]) -> Any:
    """The value of a call: names that mean plain data are read as it, everything else stays inert."""
    match name:
        case "collections OrderedDict":
            pairs = args[0] if args and isinstance(args[0], list) else ()
            return {dict_key(p[0]): p[1] for p in pairs if isinstance(p, list | tuple) and len(p) == 2}
        case "collections defaultdict" | "collections Counter":
            return dict(args[0]) if args and isinstance(args[0], dict) else {}
        case "builtins set" | "__builtin__ set" | "builtins frozenset" | "__builtin__ frozenset":
            if args and isinstance(args[0], list | tuple):
                return {dict_key(v) for v in args[0]}
        case "_codecs encode":  # how protocol 2 writes bytes
            if len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
                return args[0].encode("latin1", "replace")
        case "builtins bytearray" | "builtins bytes" | "__builtin__ bytearray" | "__builtin__ bytes":
            if args and isinstance(args[0], bytes | Span):
                return args[0]
            return b""
        case "torch Size":
            if args and isinstance(args[0], tuple | list):
                return tuple(args[0])
        case "torch device":
            return ":".join(str(a) for a in args if isinstance(a, str | int))
    return Inert(name, args)
