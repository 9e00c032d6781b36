"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    level: ok, warn (works, but not well) or fail (does not work).
    what: the subject, such as "broker".
    message: one sentence.
    remedy: one sentence that says what to do; "" if there is nothing to do.
    """

    level: Verdict
    what: str
    message: str
    remedy: str = ""
