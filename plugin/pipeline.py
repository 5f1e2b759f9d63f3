"""The main job: a recipe in, a verdict out, in stages that a killed run does not repeat.

    read -> variant (each) -> serve (each, alone) -> load (all, interleaved) -> judge -> report

Everything a run makes stands in its run directory: the recipe, variants, staging repository,
outputs, measured windows, logs and reports. Production is never written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from trimton.core.files import (
    copy_folder,
    replacing,
    replacing_folder,
    write_text,
)
from trimton.perf.hardware import describe
from trimton.perf.load.arms import ServedArm
from trimton.perf.load.closed_loop import Patience
from trimton.perf.load.feeds import feeds_from_samples
from trimton.perf.load.requests import prepare_requests
from trimton.perf.load.rounds import measure_rounds
from trimton.perf.quality import measure_quality
from trimton.perf.report.document import RunDocument, VariantEntry
from trimton.perf.results import LoadWindow, MemoryUse, QualitySummary
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.judging import Measurements, judge_run
from trimton.plugin.recipe_file import load_recipe
from trimton.plugin.recorded import write_recorded
from trimton.plugin.repository import DEFAULT_MODEL_FILENAME, config_from_json, path_digest
from trimton.plugin.run_directory import (
    MEASUREMENTS_NAME,
    RECIPE_NAME,
    RECORDED_FOLDER,
    VERDICT_NAME,
)
from trimton.plugin.run_inputs import RunInputs, read_inputs
from trimton.plugin.server.installation import require_installation
from trimton.plugin.server.process import TritonServer
from trimton.plugin.serving import Array, serve_alone
from trimton.plugin.settings import BASELINE
from trimton.plugin.stages import Json, StageStore, digest_of
from trimton.plugin.staging import freeze_config, served_name, write_staging
from trimton.plugin.step_chains import StepChains, Steps
from trimton.plugin.steps.step import TransformContext
from trimton.plugin.windows_file import WindowsFile
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model

_VERSIONS_SHOWN = ("trimton", "onnx", "onnx-ir", "onnxruntime", "numpy")

# Called with the stage, what is done, and how far it is (done, total); total 0 = unknown.
Progress = Callable[[str, int, int], None]


def run_recipe(
    recipe_file: Path, directory: Path, progress: Progress = lambda stage, done, total: None
) -> RunDocument:
    """Run ``recipe_file`` in ``directory``, continuing what an interrupted run left there.

    Writes ``verdict.json``, ``report.html``, ``report.md`` and ``measurements.json`` and returns
    the document they show. Raises InputError before anything is written for a wrong recipe or
    wrong inputs; InfrastructureError for a server that fails.
    """
    recipe = load_recipe(recipe_file)
    inputs = read_inputs(recipe, recipe_file.parent)
    installation = require_installation()
    server = f"{installation.triton_version}, onnxruntime {installation.onnxruntime_version}"
    run = _Run(inputs, directory, progress, server=server)
    write_text(directory / RECIPE_NAME, recipe_file.read_text(encoding="utf-8"))
    return run.document()


class _Run:
    def __init__(
        self, inputs: RunInputs, directory: Path, progress: Progress, *, server: str
    ) -> None:
        self.inputs = inputs
        self.recipe = inputs.recipe
        self.directory = directory
        self.progress = progress
        self.store = StageStore(directory)
        self.hardware = describe()
        self.digests = inputs.digests()
        self.names = (BASELINE, *inputs.recipe.variants)
        variants = {name: tuple(each.steps) for name, each in inputs.recipe.variants.items()}
        self.chains = StepChains(
            inputs.model,
            {BASELINE: (), **variants},
            self.store,
            directory / "variants" / ".shared",
            self._steps_key,
            self._context,
        )
        self.versions = {name: metadata.version(name) for name in _VERSIONS_SHOWN}
        # What makes measurements of two sittings comparable: they may be merged only if equal.
        hardware = self.hardware.model_dump(mode="json", exclude={"memory_available_bytes"})
        self.machine = {"hardware": hardware, "server": server}

    # --- stages ---------------------------------------------------------------------------------

    def document(self) -> RunDocument:
        entries = {name: self._variant(name) for name in self.names}
        shutil.rmtree(self._work_folder, ignore_errors=True)
        baseline_served = self._serve(BASELINE, entries[BASELINE], None)
        config = baseline_served["config"]
        served = {BASELINE: baseline_served} | {
            name: self._serve(name, entries[name], config) for name in self.recipe.variants
        }
        quality = self._quality(served)
        measurements = Measurements(
            variants=tuple(entries.values()),
            quality=quality,
            memory=tuple(MemoryUse.model_validate(part["memory"]) for part in served.values()),
            windows=self._load(entries, config),
        )
        environment = {
            "hardware": self.hardware.to_json(),
            "versions": self.versions,
            "server": baseline_served["server"],
        }
        document = judge_run(self.inputs, measurements, environment, self.directory)
        self._record(served)
        self._write_reports(document)
        return document

    def _variant(self, name: str) -> VariantEntry:
        """Make the variant's model file (the baseline's is a copy) and weigh it."""
        steps = self.chains.steps[name]
        folder = self._folder(name)

        def make() -> Json:
            self.progress(f"making {name}", 0, 0)
            model, reports = self.chains.make(name)
            with replacing_folder(folder) as temporary:
                if steps:
                    save_model(model, temporary / DEFAULT_MODEL_FILENAME)
                else:
                    self._copy_baseline(temporary)
            cost = model_cost(load_model(folder / DEFAULT_MODEL_FILENAME))
            return VariantEntry(
                name=name,
                description="" if name == BASELINE else self.recipe.variants[name].description,
                digest=path_digest(folder),
                size_bytes=_size_bytes(folder),
                parameters=cost.parameters,
                macs=cost.macs,
                nodes=cost.nodes,
                transforms=reports,
            ).model_dump(mode="json")

        result = self.store.run(
            f"variant-{name}",
            self._steps_key(steps),
            make,
            still_valid=lambda kept: folder.exists() and path_digest(folder) == kept["digest"],
        )
        return VariantEntry.model_validate(result)

    def _steps_key(self, steps: Steps) -> Json:
        """All that what ``steps`` make depends on."""
        key: Json = {"model": self.digests["model"], "steps": []}
        if steps:
            key |= {
                "steps": [step.model_dump() for step in steps],
                "calibration": self.digests["calibration"],
                "training": self.digests["training"],
                "instruction_sets": self.hardware.instruction_sets,
                "versions": self.versions,
            }
        return key

    def _context(self, name: str) -> TransformContext:
        stage = f"making {name}"
        return TransformContext(
            self.inputs.calibration,
            self.hardware.instruction_sets,
            original=self.inputs.model,
            training=self.inputs.training,
            seed=self.recipe.seed,
            recipe_folder=self.inputs.folder,
            work_folder=self._work_folder,
            on_progress=lambda done, count: self.progress(stage, done, count),
        )

    def _serve(self, name: str, entry: VariantEntry, config: Json | None) -> Json:
        """Serve one variant alone: memory, load time, outputs, the resolved configuration."""
        key = {
            "digest": entry.digest,
            "config": config or self.digests["config"],
            "evaluation": self.digests["evaluation"],
            "servers": self.recipe.load.memory_servers,
            **self.machine,
        }
        outputs = self.directory / "outputs" / f"{name}.npz"

        def serve() -> Json:
            repository = self.directory / "staging-alone"
            frozen = self._config(config)
            model = self.recipe.model.name
            write_staging(repository, model, {name: self._folder(name)}, frozen)
            served = serve_alone(
                repository,
                served_name(model, name),
                self.inputs.evaluation,
                variant=name,
                servers=self.recipe.load.memory_servers,
                log_file=self.directory / "logs" / f"serve-{name}.log",
                progress=lambda done, total: self.progress(f"serving {name}", done, total),
            )
            shutil.rmtree(repository)
            with replacing(outputs) as temporary, temporary.open("wb") as file:
                np.savez(file, *served.outputs.values())
            return {
                "memory": served.memory.model_dump(mode="json"),
                "outputs": path_digest(outputs),
                "output_names": list(served.outputs),
                "server": {"name": served.server.name, "version": served.server.version},
                "config": served.config,
            }

        return self.store.run(
            f"serve-{name}",
            key,
            serve,
            still_valid=lambda kept: outputs.exists() and path_digest(outputs) == kept["outputs"],
        )

    def _quality(self, served: Mapping[str, Json]) -> tuple[QualitySummary, ...]:
        baseline = self._outputs(BASELINE, served)
        summaries = []
        for name in self.names:
            key = {
                "baseline": served[BASELINE]["outputs"],
                "variant": served[name]["outputs"],
                "evaluation": self.digests["evaluation"],
            }

            def work(name: str = name) -> Json:
                labels = self.inputs.evaluation.labels
                return measure_quality(
                    name, baseline, self._outputs(name, served), labels
                ).model_dump(mode="json")

            result = self.store.run(f"quality-{name}", key, work)
            summaries.append(QualitySummary.model_validate(result))
        return tuple(summaries)

    def _outputs(self, name: str, served: Mapping[str, Json]) -> dict[str, Array]:
        """What the variant answered to the evaluation samples."""
        with np.load(self.directory / "outputs" / f"{name}.npz") as archive:
            return {key: archive[f"arr_{i}"] for i, key in enumerate(served[name]["output_names"])}

    def _load(self, entries: Mapping[str, VariantEntry], config: Json) -> tuple[LoadWindow, ...]:
        """Interleaved rounds on one server that serves all variants."""
        load = self.recipe.load
        key = {
            "digests": {name: entry.digest for name, entry in entries.items()},
            "config": config,
            "load": load.model_dump(),
            "seed": self.recipe.seed,
            "evaluation": self.digests["evaluation"],
            **self.machine,
        }
        windows = WindowsFile(self.directory / "windows" / f"{digest_of(key)[:16]}.jsonl")

        def measure() -> Json:
            model = self.recipe.model.name
            staging = self.directory / "staging"
            folders = {name: self._folder(name) for name in self.names}
            write_staging(staging, model, folders, self._config(config))
            per_round = len(self.names) * len(load.concurrency)
            done = windows.keep_complete_rounds(per_round)
            count = len(done)
            log_file = self.directory / "logs" / "load.log"

            def on_window(window: LoadWindow) -> None:
                nonlocal count
                windows.append(window)
                count += 1
                self.progress("loading all variants in turn", count, per_round * load.rounds)

            with (
                TritonServer.start(staging, log_file=log_file) as server,
                Endpoint(server.http_url) as endpoint,
            ):
                measure_rounds(
                    [self._arm(name, server, endpoint) for name in self.names],
                    levels=load.concurrency,
                    rounds=load.rounds,
                    window_s=load.window_s,
                    warmup_s=load.warmup_s,
                    seed=self.recipe.seed,
                    done=done,
                    on_window=on_window,
                )
            return {"windows": count, "digest": path_digest(windows.path)}

        self.store.run(
            "load",
            key,
            measure,
            still_valid=lambda kept: (
                windows.path.exists() and path_digest(windows.path) == kept["digest"]
            ),
        )
        return windows.read()

    def _arm(self, name: str, server: TritonServer, endpoint: Endpoint) -> ServedArm:
        served = served_name(self.recipe.model.name, name)
        load = self.recipe.load
        requests = prepare_requests(
            server.http_url,
            served,
            feeds_from_samples(
                self.inputs.evaluation.first(load.requests * load.batch).inputs, load.batch
            ),
            endpoint.model_metadata(served).inputs,
        )
        return ServedArm(
            variant=name,
            endpoint=endpoint,
            model=served,
            requests=requests,
            batch=load.batch,
            pid=server.pid,
            metrics_url=server.metrics_url,
            patience=Patience(is_alive=server.alive),
        )

    # --- files ----------------------------------------------------------------------------------

    def _write_reports(self, document: RunDocument) -> None:
        from trimton.perf.report.html import render_html
        from trimton.perf.report.markdown import render_markdown

        self.progress("writing the report", 0, 0)
        write_text(self.directory / MEASUREMENTS_NAME, document.model_dump_json(indent=1))
        write_text(self.directory / "report.html", render_html(document))
        write_text(self.directory / "report.md", render_markdown(document))
        write_text(self.directory / VERDICT_NAME, document.verdict.model_dump_json(indent=1))

    def _record(self, served: Mapping[str, Json]) -> None:
        """Keep a few requests with each variant's answers: production is asked for the same."""
        for name in self.names:
            write_recorded(
                self.directory / RECORDED_FOLDER / f"{name}.npz",
                self.inputs.evaluation.inputs,
                self._outputs(name, served),
            )

    def _folder(self, name: str) -> Path:
        """The variant's version folder: ``model.onnx`` and, where it has some, its data."""
        return self.directory / "variants" / name

    @property
    def _work_folder(self) -> Path:
        """Where trainings keep their state until all variants are made."""
        return self.directory / "training"

    def _copy_baseline(self, target: Path) -> None:
        """Copy the version folder: external data may lie beside the model or in a folder."""
        copy_folder(self.inputs.file.parent, target)
        (target / self.inputs.file.name).rename(target / DEFAULT_MODEL_FILENAME)

    def _config(self, resolved: Json | None) -> Any:
        """The configuration to serve with: the author's for the baseline, then the frozen one."""
        if resolved is not None:
            return freeze_config(config_from_json(resolved))
        own = self.inputs.source.config
        return config_from_json({"backend": "onnxruntime"}) if own is None else freeze_config(own)


def _size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
