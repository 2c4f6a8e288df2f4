"""All readers of sidecars: a new one is one file and one line here. The first whose name matches reads the file."""

from __future__ import annotations

from smd_analyze.loading.sidecars import (
    csv_log,
    gin,
    json_lines,
    json_settings,
    mlflow,
    prototxt,
    python_settings,
    tensorboard,
    text_settings,
    toml_settings,
    wandb,
    yaml_settings,
)
from smd_analyze.loading.sidecars.base import Reader

READERS: tuple[Reader, ...] = (
    tensorboard.READER,
    mlflow.READER,
    prototxt.READER,
    yaml_settings.READER,
    json_lines.READER,
    json_settings.READER,
    toml_settings.READER,
    text_settings.READER,
    python_settings.READER,
    gin.READER,
    csv_log.READER,
    wandb.READER,
)


def reader_of(name: str) -> Reader | None:
    """The reader for a file of this name (relative to the folder that is looked at), if any."""
    return next((r for r in READERS if r.matches(name)), None)
