"""The policy: what a variant must hold to ship. A recipe has one, and a file may have another.

A file (``trimton gate --policy``) may say more: what differs for some models and environments.
``policy.schema.json`` beside this module is its JSON schema, for editors.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from trimton.plugin.settings import BASELINE, Name, Settings

Metric = Literal[
    "accuracy",
    "agreement",
    "sqnr_db",
    "size_bytes",
    "memory_bytes",
    "throughput_rps",
    "latency_mean_ms",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "cpu_ms_per_inference",
    "energy_mj_per_inference",
    "error_rate",
]
METRIC_NAMES: tuple[str, ...] = get_args(Metric)
# A share cannot be outside of these.
_RANGES: Mapping[str, tuple[float, float]] = {
    "accuracy": (0, 1),
    "agreement": (0, 1),
    "error_rate": (0, 1),
}
_BOUNDS = ("max", "min", "max_drop", "max_regression_pct", "min_improvement_pct")

Inconclusive = Literal["inconclusive", "fail", "pass"]
Confidence = Annotated[float, Field(ge=0.5, le=0.9999)]


class Limit(Settings):
    """Limits of one metric. Relative limits compare with the baseline of the same run.

    A limit holds only if the whole interval is on its good side, is broken if the whole
    interval is on the other side, and is inconclusive in between.
    """

    max: float | None = Field(None, description="Highest value allowed, in the metric's unit.")
    min: float | None = Field(None, description="Lowest value allowed, in the metric's unit.")
    max_drop: float | None = Field(
        None, ge=0, description="Accuracy only: largest drop against the baseline, in points of 1."
    )
    max_regression_pct: float | None = Field(
        None, ge=0, description="How much worse than the baseline, in percent."
    )
    min_improvement_pct: float | None = Field(
        None, description="How much better than the baseline, in percent."
    )
    concurrency: list[int] | None = Field(
        None, description="Levels a speed limit applies to; all if absent."
    )
    confidence: Confidence | None = Field(
        None, description="Of this metric's intervals; the policy's if absent."
    )
    min_samples: int | None = Field(
        None, ge=1, description="For this metric; the policy's if absent."
    )
    inconclusive: Inconclusive | None = Field(
        None, description="For this metric; the policy's if absent."
    )

    @model_validator(mode="after")
    def _has_a_limit(self) -> Limit:
        if all(getattr(self, bound) is None for bound in _BOUNDS):
            raise ValueError(f"needs one of {', '.join(_BOUNDS)}")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing can hold both")
        return self


class Rules(Settings):
    """What every policy says."""

    equivalence_margin_pct: float = Field(
        3.0, gt=0, lt=100, description="Differences within this margin count as equivalent."
    )
    confidence: Confidence = Field(0.95, description="Of the intervals that limits are held to.")
    min_samples: int = Field(
        1,
        ge=1,
        description="With fewer samples (rounds for speed, evaluation samples for quality, fresh "
        "servers for memory) a limit is inconclusive.",
    )
    inconclusive: Inconclusive = Field(
        "inconclusive", description="What an inconclusive limit counts as."
    )
    limits: dict[Metric, Limit] = Field(min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> Rules:
        for metric, limit in self.limits.items():
            if limit.max_drop is not None and metric != "accuracy":
                raise ValueError(f"{self._place(metric)}: max_drop is for accuracy only")
            low, high = _RANGES.get(metric, (float("-inf"), float("inf")))
            for bound in ("max", "min"):
                value = getattr(limit, bound)
                if value is not None and not low <= value <= high:
                    raise ValueError(
                        f"{self._place(metric)}: {bound} {value:g} is no share; "
                        f"it lies between {low:g} and {high:g}"
                    )
        return self

    def _place(self, metric: str) -> str:
        return f"limits.{metric}"

    def confidence_of(self, limit: Limit) -> float:
        """The level of the intervals that ``limit`` is held to."""
        return self.confidence if limit.confidence is None else limit.confidence

    def min_samples_of(self, limit: Limit) -> int:
        """How many samples must stand behind what ``limit`` is held to."""
        return self.min_samples if limit.min_samples is None else limit.min_samples

    def inconclusive_of(self, limit: Limit) -> Inconclusive:
        """What an inconclusive answer to ``limit`` counts as."""
        return self.inconclusive if limit.inconclusive is None else limit.inconclusive


class Policy(Rules):
    """What the candidate must hold to pass."""

    candidate: str = Field(description="The variant that would ship.")


class Override(Settings):
    """What differs for a model or in an environment; what is not said stays.

    A limit is changed key by key; ``null`` takes a limit, or a key of it, away.
    """

    candidate: Name | None = None
    equivalence_margin_pct: float | None = None
    confidence: float | None = None
    min_samples: int | None = None
    inconclusive: Inconclusive | None = None
    limits: dict[Metric, dict[str, Any] | None] = Field(default_factory=dict)


class PolicyFile(Rules):
    """A whole policy file."""

    version: Literal[1] = Field(description="Version of this format.")
    candidate: Name | None = Field(
        None, description="The variant that would ship; the one of the run's recipe if absent."
    )
    models: dict[str, Override] = Field(
        default_factory=dict,
        description="What differs for models by name; * and ? match. All that match apply, in "
        "their order.",
    )
    environments: dict[Name, Override] = Field(
        default_factory=dict,
        description="What differs where the policy is applied, by the name given to --env; it "
        "goes before what models differ in.",
    )

    @model_validator(mode="after")
    def _every_combination_makes_sense(self) -> PolicyFile:
        for pattern in (None, *self.models):
            for environment in (None, *self.environments):
                self._resolved(pattern, environment)
        return self

    def for_run(self, model: str, environment: str | None, candidate: str) -> Policy:
        """The policy for a run on ``model`` in ``environment``, whose own is about ``candidate``.

        Raises KeyError for an environment that the file does not know.
        """
        overrides = [o for pattern, o in self.models.items() if fnmatch.fnmatchcase(model, pattern)]
        if environment is not None:
            overrides.append(self.environments[environment])
        rules = self._with(overrides)
        rules["candidate"] = rules["candidate"] or candidate
        return Policy.model_validate(rules)

    def _resolved(self, pattern: str | None, environment: str | None) -> None:
        """ValueError, with the place, where an override does not make sense."""
        places = [
            ("models", pattern, self.models),
            ("environments", environment, self.environments),
        ]
        chosen = [(f"{kind}.{key}", among[key]) for kind, key, among in places if key is not None]
        try:
            Policy.model_validate(self._with([o for _, o in chosen]) | {"candidate": BASELINE})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            message = first["msg"].removeprefix("Value error, ")
            inner = ".".join(str(part) for part in first["loc"])
            place = ".".join(filter(None, [chosen[-1][0] if chosen else "", inner]))
            raise ValueError(f"{place}: {message}" if place else message) from error

    def _with(self, overrides: list[Override]) -> dict[str, Any]:
        """The rules of this file as plain values, with ``overrides`` applied in order."""
        rules = self.model_dump(exclude={"version", "models", "environments"}, exclude_none=True)
        rules.setdefault("candidate", None)
        for override in overrides:
            changes = override.model_dump(exclude_unset=True)
            limits = dict(_changed(rules["limits"], changes.pop("limits", {})))
            rules |= {key: value for key, value in changes.items() if value is not None}
            rules["limits"] = limits
        return rules


def _changed(
    limits: Mapping[str, Any], changes: Mapping[str, dict[str, Any] | None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for metric in dict.fromkeys((*limits, *changes)):
        change = changes.get(metric, {})
        if change is not None:
            merged = {**limits.get(metric, {}), **change}
            yield metric, {key: value for key, value in merged.items() if value is not None}


def policy_schema() -> str:
    """The JSON schema of a policy file, as text of ``policy.schema.json``."""
    return json.dumps(TypeAdapter(PolicyFile).json_schema(), indent=2) + "\n"
