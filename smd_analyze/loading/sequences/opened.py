"""A unit that was read, and what the questions about its sequence need to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.frameworks.base import Fact
from smd_analyze.loading.reading import Reading
from smd_analyze.loading.sequences.name_tokens import Number
from smd_analyze.loading.sequences.order_sources import Member
from smd_analyze.loading.sequences.probing import Alike
from smd_analyze.loading.units.walk import Unit


@dataclass(frozen=True)
class Opened:
    """A unit that was read: its meaning and its files; `facts` as numbers, `batches` as a BatchNorm counted.

    `number` is what --step-pattern found in the name.
    """

    unit: Unit
    format: str
    files: tuple[FileId, ...]
    reading: Reading
    facts: tuple[Fact, ...] = ()
    batches: int | None = None
    number: Number | None = None


def alike(one: Opened) -> Alike:
    """What tells whether two checkpoints are the same or of one run."""
    return Alike(one.unit.name, one.unit.path, one.unit.link, one.files, one.reading.parameters, one.facts)


def member_of(one: Opened) -> Member:
    """What the order of the sequence needs to know of a checkpoint."""
    latest = max(f.mtime_ns for f in one.files)
    counts = one.unit.form is not None and one.unit.form.steps_in_name
    return Member(one.unit.name, one.facts, one.batches, latest, one.unit.folder, counts, one.number)
