"""Pickled modules as plain data: whole nn.Modules, and TorchScript's objects with the text of their code."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.files.sources import Source, open_source
from smd_analyze.loading.files.zip_directory import data_start, member_start, read_directory
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.pickles.pickled_tensors import Stored, TensorCalls
from smd_analyze.loading.pickles.torch_archive import read_archive
from smd_analyze.loading.tensors.inert_objects import Inert, Name
from smd_analyze.loading.tensors.places import Place, read_tensor

MOST_OBJECTS = 100_000
DEEPEST = 60
MOST_CODE = 1 << 26
SCRIPT = "__torch__"
TAGS = ("torch.jit._pickle build_", "torch.jit._pickle restore_type_tag")  # around lists: what they hold
BOOKKEEPING = ("_parameters", "_buffers", "_modules")


class Budget:
    """How many objects are still unfolded: shared parts may repeat without end."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.left = MOST_OBJECTS

    def take(self, depth: int) -> None:
        """One more, at this depth."""
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            raise UnsafeFile(f"{self.what}: refused: its modules unfold to more than {MOST_OBJECTS} objects")


def module_tree(node: Inert, what: str) -> dict[str, Any]:
    """A pickled nn.Module: `class`, `attributes` (plain ones), `hooks` (their number), `parameters`, `buffers` and
    `modules`. An attribute that is no plain data is {"object": its class}, a function {"name": where it is defined}."""
    return _module(node, Budget(what), 0)


def _module(node: Inert, budget: Budget, depth: int) -> dict[str, Any]:
    budget.take(depth)
    found = node.attributes
    hooks = sum(
        len(v) for k, v in found.items() if k.endswith("hooks") and "state_dict" not in k and isinstance(v, dict)
    )
    inner = {k: v for k, v in (found.get("_modules") or {}).items() if isinstance(k, str)}
    return {
        "class": node.name,
        "hooks": hooks,
        "attributes": {
            k: plain_of(v, budget, depth + 1)
            for k, v in found.items()
            if k not in BOOKKEEPING and not k.endswith("hooks") and not k.startswith("__")
        },
        "parameters": {k: plain_of(v, budget, depth) for k, v in (found.get("_parameters") or {}).items()},
        "buffers": {k: plain_of(v, budget, depth) for k, v in (found.get("_buffers") or {}).items()},
        "modules": {k: _module(v, budget, depth + 1) if type(v) is Inert else None for k, v in inner.items()},
    }  # fmt: skip


def plain_of(node: Any, budget: Budget, depth: int) -> Any:
    """A value as plain data. A tensor is {"tensor": shape, "dtype", "at": the byte where it lies}."""
    budget.take(depth)
    if type(node) is Place:
        return {"tensor": list(node.shape), "dtype": node.dtype, "at": node.start}
    if type(node) is Name:
        return {"name": str(node)}
    if type(node) is Inert:
        if node.name.startswith(TAGS) and node.args:
            return plain_of(node.args[0], budget, depth + 1)
        if node.name.startswith(SCRIPT):
            fields = {k: plain_of(v, budget, depth + 1) for k, v in node.attributes.items()}
            return {"object": node.name.replace(" ", "."), "fields": fields}
        return {"object": node.name}
    if isinstance(node, list | tuple):
        made = [plain_of(v, budget, depth + 1) for v in node]
        return made if isinstance(node, list) else tuple(made)
    if isinstance(node, set):
        return sorted(str(v) for v in node)
    if isinstance(node, Mapping):
        return {"dict": [(plain_of(k, budget, depth + 1), plain_of(v, budget, depth + 1)) for k, v in node.items()]}
    return node if isinstance(node, str | int | float | bool | None) else {"object": type(node).__name__}


def is_script(node: Any) -> bool:
    """An object of TorchScript, whose code lies in the archive."""
    return type(node) is Inert and node.name.startswith(SCRIPT)


def script_of(path: str) -> dict[str, Any]:
    """`root`: the scripted module as plain data; `code`: file → text; `constants`: numbers, or tensors as plain data;
    `inputs`: those that it was traced with."""
    with open_source(path) as source:
        tree, _ = read_archive(source)
        root = plain_of(tree, Budget(path), 0)
        code, left = {}, MOST_CODE
        for name in list(read_directory(source)):
            _, mark, inside = name.partition("/code/")
            if mark and inside.endswith(".py"):
                raw = unpacked(source, name, left)
                left -= len(raw)
                code[inside] = raw.decode("utf-8", "replace")
        constants, inputs = constants_of(source), traced_inputs(source)
    return {"root": root, "code": code, "constants": constants, "inputs": inputs}


def unpacked(source: Source, name: str, most: int) -> bytes:
    """A member's bytes, whether it is packed or not; DamagedFile if they are more than `most`."""
    member = read_directory(source)[name]
    start = member_start(source, name, member) if member.method == 8 else data_start(source, name, member)
    raw = source.read(start, start + member.size)
    if member.method == 8:
        try:
            raw = zlib.decompressobj(-15).decompress(raw, most + 1)
        except zlib.error as problem:
            raise DamagedFile(f"{source.path}: member {name} is not sound: {problem}") from None
    if len(raw) > most:
        raise DamagedFile(f"{source.path}: more than {MOST_CODE} bytes of code")
    return raw


def constants_of(source: Source) -> list[Any]:
    """The tensors that the code calls CONSTANTS.c0, c1, …: single numbers as such."""
    found = [n for n in read_directory(source) if n.endswith("/constants.pkl")]
    if not found:
        return []
    tree = read_constants(source, found[0])
    budget = Budget(source.path)
    out = []
    for node in tree if isinstance(tree, list | tuple) else ():
        if type(node) is Place and not node.shape:
            out.append(read_tensor(node, (source.file,)).reshape(-1)[0].item())
        else:
            out.append(plain_of(node, budget, 0))
    return out


def read_constants(source: Source, name: str) -> Any:
    """The tuple of constants, with Places of their own folder."""
    members = read_directory(source)
    folder = name.removesuffix(".pkl")

    def locate(key: Any, dtype: str) -> Stored:
        inside = f"{folder}/{key}"
        if inside not in members:
            raise DamagedFile(f"{source.path}: constant {key} is missing from the archive")
        return Stored(data_start(source, inside, members[inside]), members[inside].size, dtype)

    return beside_data(source, name, locate)


def traced_inputs(source: Source) -> list[Any]:
    """The inputs with which a module was traced, as plain data: their shapes are kept, their numbers are not."""
    found = [n for n in read_directory(source) if n.endswith("/traced_inputs.pkl")]
    if not found:
        return []
    tree = beside_data(source, found[0], lambda key, dtype: Stored(0, 1 << 60, dtype))
    told = plain_of(tree, Budget(source.path), 0)
    pairs = told["dict"] if isinstance(told, dict) and "dict" in told else []
    return next((list(inputs) for name, inputs in pairs if name == "forward" and isinstance(inputs, list)), [])


def beside_data(source: Source, name: str, locate: Callable[[Any, str], Stored]) -> Any:
    """A further pickle of the archive."""
    member = read_directory(source)[name]
    start = data_start(source, name, member)
    raw = source.read(start, start + member.size)
    calls = TensorCalls(source.path, locate)
    tree, _ = read_pickle(
        lambda a, b: raw[a - start : b - start],
        start,
        start + member.size,
        what=source.path,
        call=calls.call,
        resolve=calls.resolve,
    )
    return calls.finish(tree)
