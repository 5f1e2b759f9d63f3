"""The schema that the server gives of itself, held against what it answers.

Schemathesis makes requests that the schema allows and requests that it does not, with and without
the token, and compares status, headers and body of each answer with the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from trimton.plugin.hooks.app import FLAGGER_HOOKS

if TYPE_CHECKING:
    from tests.plugin.hooks.conftest import HookServer

HOOKS = [f"POST /flagger/{hook}" for hook in FLAGGER_HOOKS] + ["GET /argo/verdict"]
PLAIN = ["GET /metrics", "GET /healthz"]
EXAMPLES = 15
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def operations(hooks: HookServer) -> dict[str, schemathesis.APIOperation[Any, Any, Any, Any]]:
    """What the running server says it answers, by method and path."""
    schema = schemathesis.openapi.from_dict(hooks.client.get("/openapi.json").json())
    schema.config.update(
        base_url=hooks.url, headers={"Authorization": hooks.client.headers["authorization"]}
    )
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_the_schema_names_every_hook(operations: Mapping[str, Any]) -> None:
    assert sorted(operations) == sorted([*HOOKS, *PLAIN])


@pytest.mark.parametrize(
    ("label", "mode"),
    [*product(HOOKS, [POSITIVE, NEGATIVE]), *product(PLAIN, [POSITIVE])],
)
def test_an_operation_answers_as_its_schema_says(
    operations: Mapping[str, Any], label: str, mode: schemathesis.GenerationMode
) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def validate(case: schemathesis.Case) -> None:
        case.call_and_validate()

    validate()
