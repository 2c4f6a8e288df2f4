"""Finding: something that a person should know about the input, with its remedy."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One row of the `findings` table.

    `code` is a short stable word for scripts ("truncated-file"), `where` names the file, tensor or group,
    `message` says what is the matter, `remedy` what to do about it ("" if nothing can be done).
    """

    code: str
    severity: Severity
    where: str
    message: str
    remedy: str = ""
