"""What requests carry: samples, made-up values, or perf_analyzer's input data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimton.core.errors import InputError
from trimton.perf.formats.input_data import read_input_data
from trimton.perf.load.feeds import Feed, feeds_from_samples, random_feeds, zero_feed
from trimton.plugin.samples import Samples, load_samples
from trimton.plugin.subjects import Subject
from trimton.transforms.graph.inputs import InputSpec

# Different random requests, so that no cache in the server answers all of them.
_RANDOM_REQUESTS = 64


@dataclass(frozen=True)
class Feeding:
    """Where the inputs of requests come from.

    ``data`` names samples (see trimton.plugin.samples); without them ``input_data`` is random,
    zero, or the path of perf_analyzer's input data. ``shapes`` fills free dimensions.
    """

    data: str | None = None
    input_data: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.data is not None and self.shapes:
            raise InputError(
                "--shape is for made-up inputs; with --data the samples have their shape."
            )
        if self.data is not None and self.input_data is not None:
            raise InputError("give --data or --input-data, not both.")

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
        if self.input_data not in (None, "random"):
            return read_input_data(
                Path(self.input_data), subject.inputs, batch=batch, shapes=self.shapes
            )
        return random_feeds(
            subject.inputs, batch=batch, count=_RANDOM_REQUESTS, seed=self.seed, shapes=self.shapes
        )
