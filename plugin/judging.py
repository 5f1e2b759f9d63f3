"""From everything measured in a run to its document: summaries, comparisons, the verdict."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import LoadWindow, MemoryUse, MetricComparison, QualitySummary
from trimton.perf.stats.compare import compare_variants
from trimton.perf.stats.levels import summarise_levels
from trimton.perf.stats.proportions import CONFIDENCE
from trimton.perf.stats.quantiles import fixed
from trimton.perf.verdict import VariantVerdict, Verdict
from trimton.plugin.gate import judge
from trimton.plugin.observations import Measured
from trimton.plugin.policy import Policy
from trimton.plugin.repository import config_digest
from trimton.plugin.run_inputs import RunInputs
from trimton.plugin.settings import BASELINE


@dataclass(frozen=True)
class Measurements:
    """All that was measured, the baseline first in each."""

    variants: tuple[VariantEntry, ...]
    quality: tuple[QualitySummary, ...]
    memory: tuple[MemoryUse, ...]
    windows: tuple[LoadWindow, ...]


def judge_run(
    inputs: RunInputs, measured: Measurements, environment: dict[str, Any], directory: Path
) -> RunDocument:
    """Judge every variant by the recipe's policy and gather what a report shows."""
    recipe = inputs.recipe
    settings = json.loads(recipe.model_dump_json(exclude_none=True))
    settings["data"]["evaluation"] = inputs.evaluation.source
    settings["model"]["repository"] = str(inputs.source.folder.parent.absolute())
    settings["model"]["config"] = config_digest(inputs.source.config)
    return judge_measured(
        recipe.model.name, measured, recipe.policy, environment, settings, str(directory)
    )


def judge_again(document: RunDocument, policy: Policy) -> RunDocument:
    """The same measurements under another ``policy``; nothing is measured."""
    measured = Measurements(document.variants, document.quality, document.memory, document.windows)
    settings = document.settings | {"policy": json.loads(policy.model_dump_json(exclude_none=True))}
    return judge_measured(
        document.model,
        measured,
        policy,
        document.environment,
        settings,
        document.run_directory,
    )


def judge_measured(
    model: str,
    measured: Measurements,
    policy: Policy,
    environment: dict[str, Any],
    settings: dict[str, Any],
    directory: str,
) -> RunDocument:
    """The document of measurements under a ``policy``.

    ``settings`` are the resolved recipe's, ``seed`` among them; ``environment`` and ``directory``
    are what RunDocument says.
    """
    seed = int(settings["seed"])
    levels = summarise_levels(measured.windows, seed=seed)
    entries = {entry.name: entry for entry in measured.variants}
    quality = {summary.variant: summary for summary in measured.quality}
    memory = {use.variant: use for use in measured.memory}
    comparisons: dict[str, tuple[MetricComparison, ...]] = {}
    verdicts: dict[str, VariantVerdict] = {}
    for name in entries:
        if name == BASELINE:
            continue

        @functools.cache
        def at(confidence: float, name: str = name) -> Mapping[str, MetricComparison]:
            found = compare_variants(
                measured.windows,
                baseline=BASELINE,
                variant=name,
                seed=seed,
                margin=policy.equivalence_margin_pct / 100,
                quantile=functools.partial(fixed, error_rate=1 - confidence),
            )
            return {comparison.name: comparison for comparison in found}

        comparisons[name] = tuple(at(CONFIDENCE).values())
        verdicts[name] = judge(
            policy,
            Measured(
                variant=name,
                digest=entries[name].digest,
                size_bytes=entries[name].size_bytes,
                baseline_size_bytes=entries[BASELINE].size_bytes,
                quality=quality[name],
                memory=memory[name],
                baseline_memory=memory[BASELINE],
                levels={level.concurrency: level for level in levels if level.variant == name},
                comparisons=at,
            ),
        )
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    candidate = verdicts[policy.candidate]
    return RunDocument(
        title=f"{model}: {policy.candidate} against the original",
        model=model,
        created=created,
        run_directory=directory,
        environment=environment,
        settings=settings,
        variants=measured.variants,
        quality=measured.quality,
        memory=measured.memory,
        levels=levels,
        windows=measured.windows,
        comparisons=comparisons,
        verdict=Verdict(
            model=model,
            outcome=candidate.outcome,
            candidate=policy.candidate,
            baseline_digest=entries[BASELINE].digest,
            candidate_digest=candidate.digest,
            created=created,
            environment=environment,
            settings=settings,
            variants=tuple(verdicts.values()),
        ),
    )
