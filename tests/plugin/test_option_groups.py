"""Groups of options become options, and come back as groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from trimton.plugin.cli.option_groups import grouped


@dataclass(frozen=True)
class Shape:
    width: Annotated[int, typer.Option("--width", "-w", help="In pixels.")]
    colours: Annotated[list[str] | None, typer.Option()] = None


@dataclass(frozen=True)
class Solid(Shape):
    depth: Annotated[int, typer.Option()] = 1


@pytest.fixture
def seen() -> list[object]:
    return []


@pytest.fixture
def app(seen: list[object]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @grouped
    def draw(
        name: Annotated[str, typer.Argument(metavar="NAME")],
        solid: Solid,
        quietly: Annotated[bool, typer.Option("--quietly")] = False,
    ) -> None:
        """Draw it."""
        seen.extend((name, solid, quietly))

    return app


def test_fields_are_options_and_inherited_ones_too(app: typer.Typer, seen: list[object]) -> None:
    arguments = ["box", "-w", "3", "--colours", "red", "--colours", "blue", "--quietly"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert seen == ["box", Solid(3, ["red", "blue"], 1), True]


def test_a_field_without_a_default_is_asked_for(app: typer.Typer, seen: list[object]) -> None:
    done = CliRunner().invoke(app, ["box"])
    assert done.exit_code == 2
    assert "--width" in done.output
    assert seen == []


def test_help_is_that_of_the_command_and_its_groups(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert "Draw it." in text
    assert text.index("--width") < text.index("--depth") < text.index("--quietly")
    assert "In pixels." in text
