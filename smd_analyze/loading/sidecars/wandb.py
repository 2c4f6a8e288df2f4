"""Weights & Biases: what a run's own files tell. Its history is a binary log (.wandb) that is not read."""

from __future__ import annotations

from smd_analyze.loading.sidecars.base import Reader, Sidecar


def read(_path: str) -> Sidecar:
    """A remark: config.yaml beside it is read by the YAML reader."""
    return Sidecar(remark="a Weights & Biases history, which is not read; export it as CSV to use its learning rates")


READER = Reader("wandb history", lambda name: name.endswith(".wandb"), read)
