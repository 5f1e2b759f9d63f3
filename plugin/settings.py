"""What the files that people write have in common: recipes and policies."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BASELINE = "baseline"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Settings(BaseModel):
    """Base of their parts: immutable, unknown keys refused, no silent type changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
