"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing; `remedy` is one sentence too, "" if nothing need be done."""

    level: Verdict
    what: str
    sentence: str
    remedy: str = ""
