"""What calibration costs on EfficientNet-Lite0: seconds and memory, beside plain inference.

    python benchmarks/quantize_calibration.py [--again]

Trimton reads the samples once and then chooses ranges by every method it has; ONNX Runtime's
calibrators make one pass for one method. Each runs in a process of its own; memory is how far
that of the process rose above what it had before. Seconds are the least of three runs in turns.
Exit code 1 if Trimton takes more than 1.3 times the seconds of plain inference, or if its memory
for 2,048 samples is more than a tenth above that for 32. --again measures ONNX Runtime's anew,
which are kept from an earlier call.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from evaluation.catalogue import efficientnet
from evaluation.evaluation import Evaluation
from quantize_recipes import Made, Recipe, make

SAMPLES = 128
COUNTS = (32, 128, 512, 2048)
# Both run this many samples at once.
BATCH = 4
RUNS = 3
MOST_SECONDS, MOST_GROWTH = 1.3, 1.1
_BAR_MIB = 200


def plain(samples: int) -> Recipe:
    """The float model alone."""
    options = {"samples": samples, "batch": BATCH}
    return Recipe("plain inference", "plain_inference.py", None, options)


def trimton(samples: int) -> Recipe:
    """One pass, and ranges by every method."""
    options = {"samples": samples, "batch": BATCH}
    return Recipe("trimton, all methods", "trimton_calibration.py", None, options)


def onnxruntime(method: str) -> Recipe:
    """One of ONNX Runtime's calibrators."""
    options = {"method": method}
    return Recipe(
        f"ORT {method.lower()}", "onnxruntime_calibration.py", "onnxruntime-1.32.0", options
    )


def needed(recipe: Recipe, evaluation: Evaluation) -> Made:
    """What the rest is compared with; ends the benchmark where it fails."""
    made = make(recipe, evaluation)
    if made.failure is not None:
        sys.exit(f"{recipe.name}: {made.failure}")
    return made


def line(recipe: Recipe, samples: int, made: Made, seconds: float, plain_seconds: float) -> str:
    if made.failure is not None:
        return f"{recipe.name:<24} {samples:>7} {made.failure}"
    mib = made.peak_bytes / 2**20
    return (
        f"{recipe.name:<24} {samples:>7} {seconds:>8.1f} {seconds / plain_seconds:>9.2f} "
        f"{mib:>7.0f}  {'#' * round(mib / _BAR_MIB)}"
    )


def misses(seconds: float, plain_seconds: float, peaks: list[int]) -> Iterator[str]:
    """Each target that is missed, in words."""
    if seconds > MOST_SECONDS * plain_seconds:
        yield f"{seconds / plain_seconds:.2f} times plain inference, wanted {MOST_SECONDS}"
    if peaks[-1] > MOST_GROWTH * peaks[0]:
        yield f"memory grows {peaks[-1] / peaks[0]:.2f} times from {COUNTS[0]} to {COUNTS[-1]}"


def main() -> None:
    if wrong := set(sys.argv[1:]) - {"--again"}:
        sys.exit(f"{wrong.pop()} is no option; there is --again")
    evaluation, is_again = efficientnet(), "--again" in sys.argv
    print(f"{'':<24} {'samples':>7} {'seconds':>8} {'of plain':>9} {'MiB':>7}", flush=True)
    pairs = [
        (needed(plain(SAMPLES), evaluation), needed(trimton(SAMPLES), evaluation))
        for _ in range(RUNS)
    ]
    plain_seconds = min(one.seconds for one, _ in pairs)
    seconds = min(one.seconds for _, one in pairs)
    print(line(plain(SAMPLES), SAMPLES, pairs[-1][0], plain_seconds, plain_seconds))
    peaks: list[int] = []
    for count in COUNTS:
        made = needed(trimton(count), evaluation)
        shown = seconds if count == SAMPLES else made.seconds
        share = plain_seconds * count / SAMPLES
        print(line(trimton(count), count, made, shown, share), flush=True)
        peaks.append(made.peak_bytes)
    for method in ("MinMax", "Percentile", "Entropy"):
        recipe = onnxruntime(method)
        made = make(recipe, evaluation, again=is_again)
        print(line(recipe, SAMPLES, made, made.seconds, plain_seconds), flush=True)
    if missed := list(misses(seconds, plain_seconds, peaks)):
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()
