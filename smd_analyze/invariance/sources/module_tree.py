"""A whole nn.Module in a pickle: its classes and their settings, not what its forward does.

Where every class is one of torch.nn's own, torch's own code says what is computed: the model is put together again and
traced. A class of the user's own is never imported, so nothing is proved then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.run import GraphHint, LazyTensor

if TYPE_CHECKING:
    from torch import nn

Tree = Mapping[str, Any]
OWN = "torch.nn.modules."
FUNCTIONS = ("torch.nn.functional ", "torch._C._nn ")
NO_FORWARD = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Module")
SHOWN = 3


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The model, if torch.nn has all of its classes; UsageError that names those that it has not."""
    tree = hint.read()
    foreign = list(dict.fromkeys(foreign_in(tree)))
    name = PurePosixPath(hint.source).name
    if foreign:
        listed = ", ".join(foreign[:SHOWN]) + (", …" if len(foreign) > SHOWN else "")
        raise UsageError(
            f"{hint.source}: the module saved whole tells which layers there are, not how they are connected: that "
            f"stands in the code of {listed}, which is never run; give the model with --model"
        )
    if tree["class"].rpartition(" ")[2] in NO_FORWARD:
        raise UsageError(
            f"{hint.source}: a {tree['class'].rpartition(' ')[2]} is a list of layers that tells nothing of how they "
            "are connected; give the model with --model"
        )

    def made(device: str) -> nn.Module:
        try:
            return rebuilt(tree, device, {})
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            words = f"{type(problem).__name__}: {problem}"
            raise UsageError(f"{hint.source}: cannot be put together again ({words}); give the model with --model") from problem  # noqa: E501  # fmt: skip

    label = f"the {tree['class'].rpartition(' ')[2]} in {name}"
    return Built(made("meta"), label, real=lambda: made("cpu"))


def foreign_in(tree: Tree) -> Iterator[str]:
    """Classes that are not torch.nn's own, or do more than these: hooks, a forward of their own, unknown settings."""
    module, _, kind = tree["class"].partition(" ")
    if class_of(tree["class"]) is None:
        yield f"{module}.{kind}".removeprefix("__main__.")
    elif tree["hooks"]:
        yield f"the hooks on a {kind}"
    else:
        odd = [k for k, v in tree["attributes"].items() if k == "forward" or setting(v) is REFUSED]
        if odd:
            yield f"{odd[0]} of a {kind}"
    for part in tree["modules"].values():
        if part is not None:
            yield from foreign_in(part)


def class_of(told: str) -> type[nn.Module] | None:
    """torch.nn's class of that module and name; None if it has none. Nothing is imported for it."""
    from torch import nn

    module, _, kind = told.partition(" ")
    room = getattr(nn.modules, module.removeprefix(OWN), None) if module.startswith(OWN) else None
    found = getattr(room, kind, None) if kind.isidentifier() else None
    return found if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module else None


class _Refused:
    """What is no plain setting."""


REFUSED = _Refused()


def setting(value: Any) -> Any:
    """A setting as the module wants it; REFUSED for objects and functions other than torch's own activations."""
    import torch
    import torch.nn.functional as F

    if isinstance(value, dict):
        named = value.get("name")
        if isinstance(named, str) and named.startswith(FUNCTIONS):
            short = named.rpartition(" ")[2]
            found = getattr(F, short, None) if short.isidentifier() else None
            return found if callable(found) else REFUSED
        if isinstance(named, str) and named.startswith("torch "):
            found = getattr(torch, named.rpartition(" ")[2], None)
            return found if isinstance(found, torch.dtype) else REFUSED
        if "dict" in value and not value["dict"]:
            return {}
        return REFUSED
    if isinstance(value, list | tuple):
        made = [setting(v) for v in value]
        return REFUSED if any(v is REFUSED for v in made) else type(value)(made)
    return value


def rebuilt(tree: Tree, device: str, tied: dict[int, Any]) -> nn.Module:
    """A module of torch.nn with the saved settings, parameters and children, without running its constructor."""
    import torch
    from torch import nn

    kind = class_of(tree["class"])
    assert kind is not None
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for name, value in tree["attributes"].items():
        if name != "training":
            module.__dict__[name] = set(value) if name == "_non_persistent_buffers_set" else setting(value)
    for name, told in tree["parameters"].items():
        if told is not None and told["at"] not in tied:
            dtype = getattr(torch, told["dtype"])
            tied[told["at"]] = nn.Parameter(torch.zeros(told["tensor"], dtype=dtype, device=device))
        module.register_parameter(name, None if told is None else tied[told["at"]])
    for name, told in tree["buffers"].items():
        made = None
        if told is not None:
            made = torch.zeros(told["tensor"], dtype=getattr(torch, told["dtype"]), device=device)
        module.register_buffer(name, made, persistent=name not in tree["attributes"].get("_non_persistent_buffers_set", ()))  # noqa: E501  # fmt: skip
    for name, part in tree["modules"].items():
        module.add_module(name, None if part is None else rebuilt(part, device, tied))
    return module


SOURCE = GraphSource("module tree", build)
