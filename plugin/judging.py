"""From everything measured in a run to its document: summaries, comparisons, the verdict."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import LoadWindow, MemoryUse, QualitySummary
from trimton.perf.stats.compare import compare_variants
from trimton.perf.stats.levels import summarise_levels
from trimton.perf.verdict import Verdict
from trimton.plugin.gate import Measured, judge
from trimton.plugin.recipe import BASELINE
from trimton.plugin.run_inputs import RunInputs


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
    policy, names = recipe.policy, tuple(recipe.variants)
    levels = summarise_levels(measured.windows, seed=recipe.seed)
    comparisons = {
        name: compare_variants(
            measured.windows,
            baseline=BASELINE,
            variant=name,
            seed=recipe.seed,
            margin=policy.equivalence_margin_pct / 100,
        )
        for name in names
    }
    entries = {entry.name: entry for entry in measured.variants}
    quality = {summary.variant: summary for summary in measured.quality}
    memory = {use.variant: use for use in measured.memory}
    verdicts = {
        name: judge(
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
                comparisons={comparison.name: comparison for comparison in comparisons[name]},
            ),
        )
        for name in names
    }
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    settings = json.loads(recipe.model_dump_json(exclude_none=True))
    settings["data"]["evaluation"] = inputs.evaluation.source
    settings["model"]["repository"] = str(inputs.source.folder.parent.absolute())
    candidate = verdicts[policy.candidate]
    return RunDocument(
        title=f"{recipe.model.name}: {policy.candidate} against the original",
        model=recipe.model.name,
        created=created,
        run_directory=str(directory),
        environment=environment,
        settings=settings,
        variants=measured.variants,
        quality=measured.quality,
        memory=measured.memory,
        levels=levels,
        windows=measured.windows,
        comparisons=comparisons,
        verdict=Verdict(
            model=recipe.model.name,
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
