"""The options that ``perf`` and ``compare`` share, and what both do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.core.errors import InputError

if TYPE_CHECKING:
    from trimton.perf.load.feeds import Feed
    from trimton.perf.results import LoadWindow
    from trimton.plugin.feeding import Feeding
    from trimton.plugin.samples import Samples
    from trimton.plugin.subjects import Subject


UrlOption = Annotated[
    str | None,
    typer.Option("--url", "-u", metavar="HOST:PORT", help="A running server's HTTP address."),
]
MetricsUrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Prometheus metrics of the server at --url (Triton's port is 8002).",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="D",
        help="Samples to send: an .npz with one array for each input, or PACKAGE.MODULE:FUNCTION. "
        "Without it random values are sent.",
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME:DIMS",
        help="Dimensions after the first of an input with free ones, e.g. tokens:128 or "
        "image:3,224,224 (repeatable).",
    ),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", "-b", help="Samples in each request (default 1).")
]
ConcurrencyOption = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="Requests in flight, one level each (default 1)."),
]
ConcurrencyRangeOption = Annotated[
    str | None,
    typer.Option(metavar="START:END:STEP", help="The levels as a range, END included."),
]
WindowOption = Annotated[float, typer.Option(help="Seconds that one window measures.")]
WarmupOption = Annotated[float, typer.Option(help="Seconds of load before each window.")]
ThreadsOption = Annotated[
    int,
    typer.Option(min=1, help="Threads inside one inference of an .onnx file in this process."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of random inputs, orders and intervals.")]


def check_metrics_url(metrics_url: str | None, url: str | None) -> None:
    """Raise InputError for ``--metrics-url`` that is no address, or without ``--url``."""
    from trimton.perf.targets.address import Address

    if metrics_url is None:
        return
    if url is None:
        raise InputError("--metrics-url is for a server at --url; a local one is known.")
    Address.parse(metrics_url.removesuffix("/metrics"))


@dataclass(frozen=True)
class LoadPlan:
    """The options of one measurement, checked."""

    levels: tuple[int, ...]
    rounds: int
    window_s: float
    warmup_s: float
    seed: int
    batch: int | None
    feeding: Feeding

    def samples(self, subject: Subject) -> Samples | None:
        """The samples of ``--data``, checked against the inputs of ``subject``."""
        return self.feeding.samples(subject)

    def feeds(self, subject: Subject, samples: Samples | None, batch: int) -> list[Feed]:
        """The inputs of the requests: from ``samples``, or random."""
        return self.feeding.feeds(subject, samples, batch)

    def measure(
        self, subjects: Sequence[Subject], samples: Samples | None, batch: int
    ) -> tuple[LoadWindow, ...]:
        """Load ``subjects`` side by side, with progress on a terminal."""
        from trimton.perf.load.rounds import measure_rounds
        from trimton.plugin.cli.output import progress

        feeds = self.feeds(subjects[0], samples, batch)
        for subject in subjects:
            subject.infer(feeds[0])  # what the model refuses is wrong input, not an error rate
        in_flight = max(self.levels)
        arms = [subject.arm(feeds, batch, in_flight=in_flight) for subject in subjects]
        with progress() as shown:
            total = len(arms) * len(self.levels) * self.rounds
            task = shown.add_task("loading", total=total)
            return measure_rounds(
                arms,
                levels=self.levels,
                rounds=self.rounds,
                window_s=self.window_s,
                warmup_s=self.warmup_s,
                seed=self.seed,
                on_window=lambda window: shown.advance(task),
            )


def plan_from_options(
    *,
    concurrency: str | None,
    concurrency_range: str | None,
    shapes: Sequence[str] | None,
    data: str | None,
    batch: int | None,
    rounds: int,
    window_s: float,
    warmup_s: float,
    seed: int,
) -> LoadPlan:
    """Check the options; InputError names the one that is wrong."""
    from trimton.plugin.feeding import Feeding

    if not 0 < window_s < 3600:
        raise InputError(f"--window must lie between 0 and 3600 s, not {window_s:g}.")
    if not 0 <= warmup_s < 3600:
        raise InputError(f"--warmup must lie between 0 and 3600 s, not {warmup_s:g}.")
    if rounds < 1:
        raise InputError(f"--rounds must be at least 1, not {rounds}.")
    if seed < 0:
        raise InputError(f"--seed must be 0 or more, not {seed}.")
    return LoadPlan(
        levels=_levels(concurrency, concurrency_range),
        rounds=rounds,
        window_s=window_s,
        warmup_s=warmup_s,
        seed=seed,
        batch=batch,
        feeding=Feeding(data, shapes=shapes_of(shapes), seed=seed),
    )


def _levels(listed: str | None, ranged: str | None) -> tuple[int, ...]:
    from trimton.plugin.cli.load_levels import Endless, concurrency_levels

    if listed is not None and ranged is not None:
        raise InputError("give --concurrency or --concurrency-range, not both.")
    levels = concurrency_levels(listed, ranged)
    if isinstance(levels, Endless):
        raise InputError(f"--concurrency-range {ranged}: END must be given.")
    return tuple(level for level in levels if isinstance(level, int))


def shapes_of(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The dimensions of every ``--shape``, by the name of the input."""
    return dict(shape_option(text) for text in texts or ())


def shape_option(text: str) -> tuple[str, tuple[int, ...]]:
    """Name and dimensions of ``--shape NAME:DIMS``; InputError for anything else."""
    name, _, dimensions = text.rpartition(":")
    try:
        return _named(name), tuple(int(part) for part in dimensions.split(","))
    except ValueError:
        raise InputError(
            f"--shape {text}: give NAME:DIMS with whole numbers, for example image:3,224,224."
        ) from None


def _named(name: str) -> str:
    if not name:
        raise ValueError("no name")
    return name
