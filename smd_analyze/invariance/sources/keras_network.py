"""A model of layers that feed each other as Keras' configuration says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from smd_analyze.errors import UsageError

Key = tuple[str, int]  # a layer and which of its calls


class Network(nn.Module):
    """Runs the layers in the order in which their inputs are ready; a Sequential one after the other."""

    def __init__(self, layers: Mapping[str, nn.Module], described: Mapping[str, Any]) -> None:
        super().__init__()
        self.titles = {name: name.replace(".", "_") for name in layers}
        for name, layer in layers.items():
            self.add_module(self.titles[name], layer)
        config = described["config"]
        self.calls: dict[Key, list[Key]] = {}
        self.words: dict[Key, list[str]] = {}
        if described["class_name"] == "Sequential":
            before: Key | None = None
            for name in layers:
                self.calls[name, 0] = [before] if before else []
                before = name, 0
            self.inputs = [next(iter(self.calls))]
            self.outputs = [before] if before else []
            return
        for node in config["layers"]:
            name = node.get("name") or node["config"]["name"]
            for number, call in enumerate(node.get("inbound_nodes") or [[]]):
                named = list(sources(call))
                self.calls[name, number] = [key for key, _ in named]
                if any(word for _, word in named):
                    self.words[name, number] = [word for _, word in named]
        self.inputs = list(keys(config["input_layers"]))
        self.outputs = list(keys(config["output_layers"]))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs: one tensor, or several as a tuple."""
        known: dict[Key, torch.Tensor] = {}
        for key, value in zip(self.inputs, inputs, strict=True):
            known[key] = self.get_submodule(self.titles[key[0]])(value) if not self.calls.get(key) else value
        waiting = [key for key in self.calls if key not in known]
        while waiting:
            ready = [k for k in waiting if self.calls[k] and all(s in known for s in self.calls[k])]
            if not ready:
                break
            for key in ready:
                layer, words = self.get_submodule(self.titles[key[0]]), self.words.get(key)
                given = [known[s] for s in self.calls[key]]
                known[key] = layer(*given) if words is None else layer(*given, words=words)
            waiting = [k for k in waiting if k not in known]
        if any(key not in known for key in self.outputs):
            raise UsageError("the configuration's layers do not lead to its outputs; give the model with --model")
        found = tuple(known[key] for key in self.outputs)
        return found[0] if len(found) == 1 else found


def sources(call: Any, word: str = "") -> Iterator[tuple[Key, str]]:
    """The calls whose results go into this one, and the arguments that they are, "" by position.

    Keras 3 writes {"args": …, "kwargs": …}, Keras 2 [[name, n, t, {…}], …].
    """
    if isinstance(call, dict):
        history = call.get("config", {}).get("keras_history") if call.get("class_name") == "__keras_tensor__" else None
        if history:
            one_result(history)
            yield (str(history[0]), int(history[1])), word
            return
        for name, part in call.items():
            yield from sources(part, word if name in ("args", "kwargs") else name)
    elif isinstance(call, list):
        if len(call) >= 3 and isinstance(call[0], str) and isinstance(call[1], int):
            one_result(call)
            yield (call[0], call[1]), word
            call = call[3:]  # keyword arguments may be results, too
        for part in call:
            yield from sources(part, word)


def one_result(history: Any) -> None:
    """UsageError if a layer's second result is used: only first ones are followed."""
    if len(history) > 2 and isinstance(history[2], int) and history[2]:
        raise UsageError(f"the layer {history[0]} has several results; give the model with --model")


def keys(told: Any) -> Iterator[Key]:
    """[name, call, tensor], or a list or dict of such."""
    if isinstance(told, list) and len(told) == 3 and isinstance(told[0], str):
        yield told[0], int(told[1])
    elif isinstance(told, list | dict):
        for part in told.values() if isinstance(told, dict) else told:
            yield from keys(part)
