"""A recipe is read whole or refused with the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimton.core.errors import InputError
from trimton.plugin.recipe import recipe_schema
from trimton.plugin.recipe_file import load_recipe, parse_recipe
from trimton.plugin.steps import FuseStep, QuantizeStep

ROOT = Path(__file__).parents[2]

TEXT = """\
version: 1
seed: 7
model:
  repository: models
  name: net
data:
  calibration: calibration.npz
  evaluation: evaluation.npz
variants:
  fused: [fuse]
  int8:
    description: small
    steps:
      - fuse
      - quantize: {percentile: 99.9, calibration_method: percentile}
load:
  concurrency: [1, 2]
  rounds: 4
policy:
  candidate: int8
  limits:
    accuracy: {max_drop: 0.01}
"""


def test_short_and_long_forms_of_steps_mean_the_same() -> None:
    recipe = parse_recipe(TEXT, Path("r.yaml"))
    long_form = TEXT.replace("- fuse\n", "- {step: fuse}\n").replace("[fuse]", "{steps: [fuse]}")

    assert recipe == parse_recipe(long_form, Path("r.yaml"))
    assert recipe.variants["fused"].steps == [FuseStep()]
    assert recipe.variants["int8"].steps == [
        FuseStep(),
        QuantizeStep(percentile=99.9, calibration_method="percentile"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("version: 1", "version: 2", 1, "version"),
        ("seed: 7", "seed: seven", 2, "seed: input should be a valid integer"),
        ("seed: 7", "seed: 7\nseed: 8", 3, "'seed' stands twice"),
        ("  name: net\n", "", 3, "model.name: is missing"),
        ("rounds: 4", "round: 4", 18, "load.round: unknown key"),
        ("rounds: 4", 'rounds: "4"', 18, "load.rounds"),
        ("[1, 2]", "[1, 0]", 17, "load.concurrency.1"),
        ("- fuse\n", "- fues\n", 14, "unknown transform fues"),
        ("- fuse\n", "- prune: {ratio: 1.5}\n", 14, "prune: ratio 1.5: must lie between"),
        ("- fuse\n", "- prune: {ratio: 0.5, importance: l3}\n", 14, "importance: input should be"),
        ("- fuse\n", "- prune: {}\n", 14, "give one of ratio, target macs and target speedup"),
        ("percentile: 99.9", "percentile: 9", 15, "greater than 50"),
        ("percentile: 99.9", "percent: 99.9", 15, "percent: unknown key"),
        ("candidate: int8", "candidate: int4", 20, "'int4' is no variant"),
        ("accuracy: {max_drop: 0.01}", "accuracy: {}", 22, "needs one of"),
        ("accuracy:", "acuracy:", 22, "acuracy"),
        ("accuracy: {max_drop: 0.01}", "agreement: {max_drop: 0.01}", 22, "accuracy only"),
        ("{max_drop: 0.01}", "{max: 1, concurrency: [3]}", 22, "concurrency 3"),
        ("  fused:", "  baseline:", 9, "the original's name"),
        ("  calibration: calibration.npz\n", "", 6, "'int8' needs it"),
        ("model:\n", "model: [\n", 5, "expected"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line(old: str, new: str, line: int, words: str) -> None:
    assert old in TEXT

    with pytest.raises(InputError) as caught:
        parse_recipe(TEXT.replace(old, new, 1), Path("r.yaml"))

    message = str(caught.value)
    assert message.startswith(f"r.yaml: line {line}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "42", "- a\n- b\n", "\x00"])
def test_text_that_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"r\.yaml: "):
        parse_recipe(text, Path("r.yaml"))


def test_missing_folder_and_binary_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(InputError, match=path.name):
            load_recipe(path)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_of_the_repository_is_valid(path: Path) -> None:
    assert load_recipe(path).variants


def test_the_schema_beside_the_recipe_module_is_current() -> None:
    assert (ROOT / "plugin" / "recipe.schema.json").read_text() == recipe_schema()
