"""SVG elements as escaped markup."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

Point = tuple[float, float]


def element(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """``<name attributes>children</name>``; text is escaped, a None attribute is left out.

    A trailing underscore of an attribute's name is dropped (``class_``), others become hyphens.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def text(content: str, x: float, y: float, class_: str = "", anchor: str = "start") -> Markup:
    """A line of text whose baseline starts, ends or is centred at ``(x, y)``."""
    return element("text", content, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def line(start: Point, end: Point, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def polyline(points: Iterable[Point], class_: str, dash: str | None = None) -> Markup:
    """An open line through ``points``."""
    path = " ".join(f"{_value(x)},{_value(y)}" for x, y in points)
    return element("polyline", points=path, class_=class_, stroke_dasharray=dash)


def group(*children: Markup, **attributes: str | float | None) -> Markup:
    """A group of elements."""
    return element("g", *children, **attributes)


def tip(content: str) -> Markup:
    """The text shown for an element under the pointer, and read aloud by a screen reader."""
    return element("title", content)


def shortened(content: str, most: int) -> str:
    """``content``, its middle left out where it is longer than ``most`` characters."""
    if len(content) <= most:
        return content
    head = (most - 1) // 2
    return f"{content[:head]}…{content[len(content) - (most - 1 - head) :]}"


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
