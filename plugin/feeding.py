"""What requests carry: samples, made-up values, or perf_analyzer's input data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trimton.core.errors import InputError
from trimton.perf.formats.input_data import read_input_data, read_validation_data
from trimton.perf.load.feeds import Feed, feeds_from_samples, random_feeds, zero_feed
from trimton.perf.load.output_check import OutputCheck
from trimton.perf.load.tolerance import Tolerance
from trimton.plugin.samples import Samples, load_samples
from trimton.plugin.subjects import Subject
from trimton.transforms.graph.inputs import InputSpec

# Different random requests, so that no cache in the server answers all of them.
_RANDOM_REQUESTS = 64


@dataclass(frozen=True)
class Feeding:
    """Where the inputs of requests come from.

    ``data`` names samples (see trimton.plugin.samples); without them ``input_data`` is random,
    zero, or the path of perf_analyzer's input data. ``shapes`` fills free dimensions. Answers are
    compared with the file's validation data within ``tolerance``: None for ``validates`` does so
    where it has any, True asks for it, False leaves it out.
    """

    data: str | None = None
    input_data: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0
    validates: bool | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __post_init__(self) -> None:
        if self.data is not None and self.shapes:
            raise InputError(
                "--shape is for made-up inputs; with --data the samples have their shape."
            )
        if self.data is not None and self.input_data is not None:
            raise InputError("give --data or --input-data, not both.")
        if self.validates and self._file is None:
            raise InputError(
                "--validate compares answers with the validation_data of a JSON file; give one "
                "with --input-data."
            )

    def samples(self, subject: Subject) -> Samples | None:
        """The samples of ``data``, checked against the inputs of ``subject``."""
        if self.data is None:
            return None
        specs = [InputSpec(s.name, s.dtype, s.shape, s.optional) for s in subject.inputs]
        return load_samples(self.data, specs)

    def feeds(self, subject: Subject, samples: Samples | None, batch: int) -> list[Feed]:
        """The inputs of the requests, ``batch`` samples in each; at least one request.

        Raises InputError for what does not fit the inputs of ``subject``.
        """
        if samples is not None:
            return feeds_from_samples(samples.inputs, batch)
        if self.input_data == "zero":
            return [zero_feed(subject.inputs, batch=batch, shapes=self.shapes)]
        if self._file is not None:
            return read_input_data(self._file, subject.inputs, batch=batch, shapes=self.shapes)
        return random_feeds(
            subject.inputs, batch=batch, count=_RANDOM_REQUESTS, seed=self.seed, shapes=self.shapes
        )

    def check(self, subject: Subject, feeds: Sequence[Feed], batch: int) -> OutputCheck | None:
        """What the answers to ``feeds`` must hold; None where that is not asked for.

        Raises InputError for what does not fit the outputs of ``subject``, and where validation
        is asked for but there is no validation data.
        """
        if self._file is None or self.validates is False:
            return None
        expected = read_validation_data(self._file, subject.outputs, batch=batch)
        if expected is None and self.validates:
            raise InputError(
                f"{self._file}: has no validation_data; give the expected outputs there, or leave "
                "--validate out."
            )
        if expected is None:
            return None
        if len(expected) != len(feeds):
            raise InputError(
                f"{self._file}: an output of {subject.name} has no batch axis, so the validation "
                f"data of {batch} samples does not make one answer; use -b 1."
            )
        return OutputCheck(expected, self.tolerance)

    @property
    def _file(self) -> Path | None:
        """The file or folder that holds the inputs."""
        return None if self.input_data in (None, "random", "zero") else Path(self.input_data)
