"""YAML files of settings. Tags of other languages' objects are read as the data that they hold: nothing is made."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file

DEEPEST = 200
BRACKETS = re.compile(r"[\[\]{}]")
KNOWN = re.compile(
    r"(hparams|args|opt|hyp|config|params|hyperparameters|train_?args|train(ing)?_?config|flags)\.ya?ml|\.hydra/config\.yaml"
)


def read(path: str) -> Sidecar:
    """The file's mapping; nothing if it holds something else."""
    import yaml  # only where there is such a file

    text = text_of_file(path)
    if depth_of(text) > DEEPEST:  # PyYAML takes seconds to find that out
        raise DamagedFile(f"{path}: not sound YAML: more than {DEEPEST} brackets within each other")
    try:
        found = yaml.load(text, loader())  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        words = " ".join(str(problem).split())[:200]
        raise DamagedFile(f"{path}: not sound YAML: {words}") from None
    if not isinstance(found, dict):
        return Sidecar()
    return Sidecar(unwrapped(found))


def depth_of(text: str) -> int:
    """How deep brackets stand within each other, those in words included."""
    depth = deepest = 0
    for mark in BRACKETS.findall(text):
        depth = depth + 1 if mark in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def unwrapped(found: dict[Any, Any]) -> dict[Any, Any]:
    """wandb's config.yaml keeps every value as {desc, value}."""
    inner = {k: v["value"] for k, v in found.items() if isinstance(v, dict) and "value" in v and v.keys() <= WANDB}
    return inner if inner and len(inner) >= len(found) - 2 else found


WANDB = {"value", "desc"}


@cache
def loader() -> type:
    """PyYAML's safe loader that takes unknown tags for what they are written as: a word, a list or a mapping."""
    import yaml

    class Inert(yaml.SafeLoader):
        """Constructs numbers, words, lists and dicts only."""

    def inert(made: Any, _suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return made.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return made.construct_sequence(node, deep=True)
        return made.construct_mapping(node, deep=True)

    for prefix in ("!", "tag:"):
        Inert.add_multi_constructor(prefix, inert)
    return Inert


READER = Reader("YAML", lambda name: name.endswith((".yaml", ".yml")), read, lambda name: bool(KNOWN.fullmatch(name)))
