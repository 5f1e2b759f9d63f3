"""What is asked over HTTP. Source: Flagger's webhooks, Argo Rollouts' web metric."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}$",
        description="The model's name in the repository.",
    ),
]
VersionName = Annotated[
    str,
    Field(
        pattern=r"^([1-9][0-9]{0,17}|sha256:[0-9a-f]{64})$",
        description="A version's number in the repository, or the digest of its bytes as "
        "verdict.json has it.",
    ),
]


class Subject(BaseModel):
    """Which version is asked about."""

    model_config = ConfigDict(frozen=True)

    model: ModelName
    version: VersionName


class FlaggerCall(BaseModel):
    """The body of Flagger's webhooks; ``metadata`` comes from the Canary."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(max_length=253)]
    namespace: Annotated[str, Field(max_length=253)]
    phase: Annotated[str, Field(max_length=64)] = ""
    metadata: Subject


class Health(BaseModel):
    """The runs can be read."""

    verdicts: int


class Refusal(BaseModel):
    """Why a request was not answered, in one sentence."""

    error: str
