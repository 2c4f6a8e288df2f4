"""Text files of settings: argparse's `Namespace(lr=0.1, …)`, and lines of `name: value` or `name = value`."""

from __future__ import annotations

import ast
import re
from typing import Any

from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file
from smd_analyze.loading.sidecars.literals import literal, parsed

NAMES = re.compile(
    r"(.*_)?(args|arguments|opts?|options|config|cfg|hparams|params|hyperparameters|settings|commandline_args|command|flags)(\.txt|\.log|\.ini|\.cfg)"
)
PAIR = re.compile(r"\s*(?:--)?([A-Za-z_][\w.\-/]*)\s*[:=]\s*(.*?)\s*(\[default: .*\])?\s*,?\s*")
OPTION = re.compile(r"--([A-Za-z_][\w\-]*)(?:[= ]+(?!--)(\S+))?")


def read(path: str) -> Sidecar:
    """The pairs that the text holds, as literals where they are written so, else as words."""
    text = text_of_file(path)
    stripped = text.strip()
    if stripped.startswith("{"):
        tree = parsed(stripped, path, "eval")
        found = literal(tree.body) if isinstance(tree, ast.Expression) else None
        return Sidecar(found if isinstance(found, dict) else {})
    begin = text.find("Namespace(")
    if begin >= 0:
        tree = parsed(text[begin : end_of(text, begin)], path, "eval")
        if isinstance(tree, ast.Expression) and isinstance(tree.body, ast.Call):
            return Sidecar({k.arg: literal(k.value) for k in tree.body.keywords if k.arg})
    if " --" in text and ".py" in text:
        return Sidecar({key.replace("-", "_"): value_of(value or "True") for key, value in OPTION.findall(text)})
    out: dict[str, Any] = {}
    for line in text.splitlines():
        match = PAIR.fullmatch(line)
        if match:
            out[match[1].replace("-", "_")] = value_of(match[2])
    return Sidecar(out)


def end_of(text: str, begin: int) -> int:
    """Behind the parenthesis that closes the first one after `begin`; strings are stepped over."""
    depth, quote, at = 0, "", begin
    while at < len(text):
        char = text[at]
        if quote:
            at += char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return len(text)


def value_of(text: str) -> Any:
    """A number, list or word."""
    try:
        return ast.literal_eval(text) if len(text) < 1000 else text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


READER = Reader("text", lambda name: bool(NAMES.fullmatch(name.rpartition("/")[2])), read)
