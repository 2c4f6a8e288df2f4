"""Lightning: one .ckpt with state_dict, optimizer_states, lr_schedulers, global_step, epoch, hyper_parameters."""

from __future__ import annotations

from dataclasses import replace

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts


def matches(document: Document) -> bool:
    """Lightning writes its version into every checkpoint."""
    return isinstance(document.tree, dict) and "pytorch-lightning_version" in document.tree


def read_parts(document: Document) -> Parts:
    """The keys are the plain ones; `state_dict` is always the model."""
    parts = plain.read_parts(document)
    return replace(parts, weights=document.tree.get("state_dict"), where="state_dict", others=(), companions={})


FRAMEWORK = Framework("lightning", matches, read_parts)
