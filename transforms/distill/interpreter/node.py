"""What an operator's function is made from: the attributes of a node, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

Results = Tensor | tuple[Tensor | None, ...]
Kernel = Callable[..., Results]
Reader = Callable[[Tensor | None], list[int] | None]


@dataclass(frozen=True)
class NodeView:
    """One node as the builders of kernels see it.

    ``opset`` is the version of the node's domain. ``known`` holds, by input, the values that are
    the same whenever the plan runs: they depend on constants and on the shapes of what is fed.
    ``ranks`` are the numbers of axes of the inputs (0 for one that is left out).
    ``uses_batch_statistics`` tells normalisation over the batch which statistics to take.
    """

    node: ir.Node
    opset: int
    known: tuple[Tensor | None, ...] = ()
    ranks: tuple[int, ...] = ()
    uses_batch_statistics: bool = False

    @property
    def outputs(self) -> int:
        """How many outputs the node lists."""
        return len(self.node.outputs)

    def wants(self, index: int) -> bool:
        """Whether output ``index`` is listed and named."""
        return index < self.outputs and bool(self.node.outputs[index].name)

    def integer(self, name: str, default: int) -> int:
        """The integer attribute ``name``."""
        value = self.node.attributes.get_int(name, None)
        return default if value is None else value

    def flag(self, name: str, default: bool = False) -> bool:
        """The integer attribute ``name`` as a truth."""
        return bool(self.integer(name, int(default)))

    def integers(self, name: str) -> list[int] | None:
        """The attribute ``name`` as a list of integers; None where it is left out."""
        value = self.node.attributes.get_ints(name, None)
        return None if value is None else list(value)

    def number(self, name: str, default: float) -> float:
        """The floating-point attribute ``name``."""
        value = self.node.attributes.get_float(name, None)
        return default if value is None else value

    def numbers(self, name: str) -> list[float] | None:
        """The attribute ``name`` as a list of numbers; None where it is left out."""
        value = self.node.attributes.get_floats(name, None)
        return None if value is None else list(value)

    def text(self, name: str, default: str) -> str:
        """The text attribute ``name``."""
        value = self.node.attributes.get_string(name, None)
        return default if value is None else value

    def texts(self, name: str) -> list[str] | None:
        """The attribute ``name`` as a list of texts; None where it is left out."""
        value = self.node.attributes.get_strings(name, None)
        return None if value is None else list(value)

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def known_at(self, index: int) -> Tensor | None:
        """The value of input ``index`` where it is known, else None."""
        return self.known[index] if index < len(self.known) else None

    def known_number(self, index: int) -> float | None:
        """The known value of input ``index`` as a number, where it is one."""
        value = self.known_at(index)
        return value.item() if value is not None and value.numel() == 1 else None

    def reader(self, index: int) -> Reader:
        """A function from what input ``index`` gets at run time to its integers.

        A known input is read once, here: a plan then runs without any arithmetic of shapes.
        """
        value = self.known_at(index)
        if value is None:
            return _integers
        fixed = _integers(value)
        return lambda _: fixed


def described(node: ir.Node) -> str:
    """Operator, domain where it is not the standard one, and name: for a person to find it."""
    domain = f" of {node.domain}" if node.domain else ""
    return f"{node.op_type}{domain} (node {node.name!r})"


def _integers(value: Tensor | None) -> list[int] | None:
    return None if value is None else [int(number) for number in value.reshape(-1).tolist()]
