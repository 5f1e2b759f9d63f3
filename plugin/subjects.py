"""What ``perf`` and ``compare`` can load.

A subject is an ``.onnx`` file (ONNX Runtime in this process), a model folder of a Triton
repository (a local Triton serves it), or the name of a model on a running server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.arms import Arm, ServedArm
from trimton.perf.load.crew_arm import CrewArm, Crews
from trimton.perf.load.output_check import OutputCheck
from trimton.perf.load.patience import Patience
from trimton.perf.load.tally import OnRequest
from trimton.perf.load.threads import InProcessArm
from trimton.perf.targets.access import Access
from trimton.perf.targets.endpoint import ServerMetadata
from trimton.perf.targets.in_process import InProcessModel
from trimton.perf.targets.model_endpoint import ModelEndpoint
from trimton.perf.targets.tensors import Array, TensorSpec
from trimton.plugin.repository import RepositoryModel, open_repository
from trimton.plugin.served_folders import stage_models
from trimton.plugin.server.process import TritonServer, last_words
from trimton.plugin.wire import Wire

# Samples in one request where outputs, not speed, are wanted.
_INFER_BATCH = 32


class Subject(Protocol):
    """One model that answers requests and can be loaded."""

    @property
    def name(self) -> str:
        """What the variant is called in results."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def server(self) -> ServerMetadata | None:
        """The server behind it, as it reports itself; None in this process."""

    @property
    def largest_batch(self) -> int | None:
        """The most samples that one request may carry; None without a limit."""

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]: ...

    def arm(
        self,
        feeds: Sequence[Mapping[str, Array]],
        batch: int,
        *,
        in_flight: int = 1,
        on_request: OnRequest | None = None,
        check: OutputCheck | None = None,
    ) -> Arm:
        """What loads it with ``feeds``, at most ``in_flight`` of them at a time.

        ``on_request`` is told of every counted success; ``check`` says what answers must hold.
        """


@dataclass(frozen=True)
class FileSubject:
    """An ``.onnx`` file, run in this process."""

    name: str
    model: InProcessModel
    server: ServerMetadata | None = None
    largest_batch: int | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.model.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.model.outputs

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return self.model.infer(feed)

    def arm(
        self,
        feeds: Sequence[Mapping[str, Array]],
        batch: int,
        *,
        in_flight: int = 1,
        on_request: OnRequest | None = None,
        check: OutputCheck | None = None,
    ) -> Arm:
        return InProcessArm(self.name, self.model, feeds, batch, on_request, check)


@dataclass(frozen=True)
class ServedSubject:
    """A model on a server; ``local`` is that server where this process started it.

    ``metrics_url`` is ``host:port`` of its Prometheus metrics, where known. ``cleanup`` gives
    back what requests took on this machine.
    """

    name: str
    model: str
    endpoint: ModelEndpoint
    access: Access
    wire: Wire
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    server: ServerMetadata
    largest_batch: int | None
    cleanup: ExitStack
    crews: Crews
    local: TritonServer | None = None
    metrics_url: str | None = None

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return self.endpoint.infer(self.model, feed, self.inputs)

    def arm(
        self,
        feeds: Sequence[Mapping[str, Array]],
        batch: int,
        *,
        in_flight: int = 1,
        on_request: OnRequest | None = None,
        check: OutputCheck | None = None,
    ) -> ServedArm:
        source = self.wire.source(
            self.endpoint,
            self.access,
            self.model,
            feeds,
            self.inputs,
            batch=batch,
            in_flight=in_flight,
            cleanup=self.cleanup,
            check=check,
        )
        load = source.prepare()
        arm = CrewArm(
            self.name,
            self.endpoint,
            self.model,
            load.requests,
            batch,
            connector=load.connector,
            connections_max=source.connections_max,
            on_request=on_request,
            response_times=load.response_times,
            metrics_url=self.metrics_url,
            source=source,
            # What is told single requests hears of this process's alone.
            crews=self.crews if on_request is None else Crews(1),
        )
        if self.local is None:
            return arm
        patience = Patience(is_alive=self.local.alive)
        return replace(arm, pid=self.local.pid, patience=patience)


@contextmanager
def _serving(
    access: Access,
    wire: Wire,
    names: Sequence[str],
    models: Sequence[str],
    local: TritonServer | None = None,
    metrics_url: str | None = None,
) -> Iterator[tuple[Subject, ...]]:
    """Ask the server about ``models``, which results call ``names``."""
    with wire.protocol.endpoint(access) as endpoint, ExitStack() as cleanup:
        server = endpoint.server_metadata()
        crews = cleanup.enter_context(Crews(wire.workers))
        yield tuple(
            ServedSubject(
                name=name,
                model=model,
                endpoint=endpoint,
                access=access,
                wire=wire,
                inputs=metadata.inputs,
                outputs=metadata.outputs,
                server=server,
                largest_batch=endpoint.max_batch_size(model),
                cleanup=cleanup,
                crews=crews,
                local=local,
                metrics_url=metrics_url,
            )
            for name, model in zip(names, models, strict=True)
            for metadata in (endpoint.model_metadata(model),)
        )


@contextmanager
def open_subjects(
    models: Sequence[str],
    *,
    url: str | None,
    intra_op_threads: int,
    wire: Wire | None = None,
    metrics_url: str | None = None,
) -> Iterator[tuple[Subject, ...]]:
    """The subjects that ``models`` name, all of one kind, until the block ends.

    With ``url`` they are models on that server, whose metrics are at ``metrics_url``.
    ``intra_op_threads`` applies to ``.onnx`` files, ``wire`` (default: HTTP) to the others. A
    local server is started for model folders and ended with the block.

    Raises InputError for what is none of the three or a mixture, and InfrastructureError when a
    server does not answer.
    """
    names = _distinct(models)
    with ExitStack() as stack:
        if url is not None:
            wire = wire or Wire()
            yield stack.enter_context(
                _serving(wire.access(url), wire, names, models, metrics_url=metrics_url)
            )
        elif all(_is_file(model) for model in models):
            yield tuple(
                FileSubject(name, InProcessModel(path, intra_op_threads=intra_op_threads))
                for name, path in zip(names, map(_model_file, models), strict=True)
            )
        elif all(Path(model).is_dir() and not _is_file(model) for model in models):
            folders = [_model_folder(model) for model in models]
            yield stack.enter_context(_serve(folders, names, wire or Wire()))
        else:
            raise InputError(_what_is_wrong(models))


def check_same_inputs(subjects: Sequence[Subject]) -> None:
    """Raise InputError unless all ``subjects`` take what the first takes."""
    first = subjects[0]
    wanted = [(spec.name, spec.datatype, len(spec.shape)) for spec in first.inputs]
    for subject in subjects[1:]:
        if [(spec.name, spec.datatype, len(spec.shape)) for spec in subject.inputs] != wanted:
            raise InputError(
                f"{subject.name} takes other inputs ({_listed(subject)}) than {first.name} "
                f"({_listed(first)}); only variants of one model can be compared."
            )


def _listed(subject: Subject) -> str:
    return ", ".join(
        f"{spec.name} {spec.datatype} "
        f"[{', '.join('N' if n is None else str(n) for n in spec.shape)}]"
        for spec in subject.inputs
    )


def answers_of(subject: Subject, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """The outputs of ``subject`` for all samples of ``inputs``, by name, first axis = samples.

    ``batch`` is the size of requests where the model fixes it, else a larger one is chosen.
    """
    fixed = any(spec.shape and spec.shape[0] is not None for spec in subject.inputs)
    size = batch if fixed else min(_INFER_BATCH, subject.largest_batch or _INFER_BATCH)
    count = len(next(iter(inputs.values())))
    parts: dict[str, list[Array]] = {}
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        used = min(size, count - start)
        rows = rows % count if fixed else rows[:used]
        outputs = subject.infer({name: array[rows] for name, array in inputs.items()})
        for name, values in outputs.items():
            parts.setdefault(name, []).append(values[:used])
    return {name: np.concatenate(values) for name, values in parts.items()}


@contextmanager
def _serve(
    folders: Sequence[RepositoryModel], names: Sequence[str], wire: Wire
) -> Iterator[tuple[Subject, ...]]:
    with TemporaryDirectory(prefix="trimton-serve-") as scratch:
        repository, served = stage_models(folders, Path(scratch) / "models")
        log_file = Path(scratch) / "triton.log"
        with TritonServer.start(repository, load=sorted(set(served)), log_file=log_file) as server:
            url = {"http": server.http_url, "grpc": server.grpc_url}[wire.protocol.name]
            try:
                with _serving(
                    wire.access(url), wire, names, served, server, server.metrics_url
                ) as subjects:
                    yield subjects
            except InfrastructureError as error:
                if server.alive():
                    raise
                # The log goes with the server, so its last words stand here.
                raise InfrastructureError(
                    f"the local Triton server ended during the measurement: {last_words(log_file)}"
                ) from error


def _is_file(model: str) -> bool:
    return model.endswith(".onnx")


def _model_file(model: str) -> Path:
    """Triton's folder ``model.onnx/`` holds ``model.onnx`` beside its external data."""
    path = Path(model)
    return path / "model.onnx" if path.is_dir() else path


def _model_folder(model: str) -> RepositoryModel:
    path = Path(model).resolve()
    return open_repository(path.parent).model(path.name)


def _distinct(models: Sequence[str]) -> tuple[str, ...]:
    """The shortest distinct names: the last part of a path, else the whole; "(2)" for repeats."""
    last = [Path(model).stem if _is_file(model) else Path(model).name or model for model in models]
    names = last if len(set(last)) == len(set(models)) else list(models)
    return tuple(
        name if names[:index].count(name) == 0 else f"{name} ({names[:index].count(name) + 1})"
        for index, name in enumerate(names)
    )


def _what_is_wrong(models: Sequence[str]) -> str:
    for model in models:
        if not _is_file(model) and not Path(model).is_dir():
            return (
                f"{model}: is neither an .onnx file nor a model folder; for a model on a running "
                "server give its address with --url HOST:PORT."
            )
    return "give either .onnx files or model folders, not both: they are measured differently."
