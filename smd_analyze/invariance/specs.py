"""Where a model or its inputs come from: an object, a factory, "package.module:callable" or "file.py:callable"."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.jax_model import is_of_jax

FORM = '"package.module:callable" or "file.py:callable"'


def label(spec: Any) -> str:
    """How messages and the report call it."""
    if isinstance(spec, str):
        return spec
    return getattr(spec, "__qualname__", None) or type(spec).__name__


def load_model(spec: Any) -> Any:
    """The nn.Module (or the model of jax) that `spec` is, or that it returns when called without arguments.

    Raises UsageError, naming the spec, if it cannot be imported, is not callable, raises, or returns something else.
    """
    found = _resolved(spec, "--model")
    if isinstance(found, nn.Module) or is_of_jax(found):
        return found
    if not callable(found):
        raise UsageError(
            f"--model {label(spec)} is a {type(found).__name__}, not callable; name a function that returns the model"
        )
    made = _called(found, spec, "--model")
    if not isinstance(made, nn.Module) and not is_of_jax(made):
        kind = type(made).__name__
        raise UsageError(
            f"--model {label(spec)} returned a {kind}, not a torch.nn.Module; let it return the model itself"
        )
    return made


def load_inputs(spec: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs: from a tuple, a tensor, a mapping of keywords, or what `spec` returns when called.

    Raises UsageError, naming the spec, as `load_model` does.
    """
    found = _resolved(spec, "--inputs")
    if not isinstance(found, (torch.Tensor, tuple, list, Mapping)) and not hasattr(found, "dtype"):
        if not callable(found):
            kind = type(found).__name__
            raise UsageError(
                f"--inputs {label(spec)} is a {kind}; name a function that returns the tuple of example inputs"
            )
        found = _called(found, spec, "--inputs")
    if isinstance(found, torch.Tensor) or (hasattr(found, "shape") and hasattr(found, "dtype")):
        return (found,), {}
    if isinstance(found, Mapping):
        return (), dict(found)
    if isinstance(found, (tuple, list)):
        return tuple(found), {}
    kind = type(found).__name__
    raise UsageError(f"--inputs {label(spec)} returned a {kind}; let it return a tuple of tensors")


def _called(function: Any, spec: Any, option: str) -> Any:
    try:
        return function()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"{option} {label(spec)} failed when called without arguments ({reason}); mend it or name another"
        ) from error


def _resolved(spec: Any, option: str) -> Any:
    """The object itself; a text is imported."""
    if not isinstance(spec, str):
        return spec
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise UsageError(f"{option} {spec!r} names no callable; write it as {FORM}")
    module = _module(source, spec, option)
    found: Any = module
    for word in name.split("."):
        if not hasattr(found, word):
            public = ", ".join(n for n in vars(module) if not n.startswith("_"))[:200]
            raise UsageError(f"{option} {spec}: {source} has no {name!r}; it has {public or 'nothing public'}")
        found = getattr(found, word)
    return found


def _module(source: str, spec: str, option: str) -> Any:
    try:
        if not source.endswith(".py"):
            here = str(Path.cwd())
            if here not in sys.path:  # as `python -m` does: the user's own modules lie beside the call
                sys.path.insert(0, here)
            return importlib.import_module(source)
        path = Path(source).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"{option} {spec}: there is no file {path}; write the option as {FORM}")
        if str(path.parent) not in sys.path:  # its neighbours can be imported, as if it were run
            sys.path.insert(0, str(path.parent))
        found = importlib.util.spec_from_file_location(path.stem, path)
        if found is None or found.loader is None:
            raise UsageError(f"{option} {spec}: {path} is no Python file; write the option as {FORM}")
        module = importlib.util.module_from_spec(found)
        sys.modules.setdefault(path.stem, module)
        found.loader.exec_module(module)
        return module
    except UsageError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"{option} {spec} cannot be imported ({reason}); check the path and what it imports"
        ) from error
