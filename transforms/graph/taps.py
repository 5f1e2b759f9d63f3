"""Values inside a model on calibration samples: a copy that computes them and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.session import ORT_ERRORS, custom_operators, open_session, run

Feed = Mapping[str, Array]


class Taps:
    """Runs the part of ``model`` that the values ``names`` depend on.

    ``threads`` compute one operator (None: as many as there are cores); calls may come from
    several threads at once. Without ``optimise`` every node is computed by itself, as it stands.
    Raises UnsupportedModelError where ONNX Runtime cannot run the model.
    """

    def __init__(
        self,
        model: ir.Model,
        names: Iterable[str],
        *,
        threads: int | None = None,
        optimise: bool = True,
    ) -> None:
        self._names = tuple(dict.fromkeys(names))
        if custom := custom_operators(model):
            raise UnsupportedModelError(f"ONNX Runtime does not know {', '.join(custom)}.")
        part = _part(model, set(self._names))
        try:
            # Whoever taps computes with the values before it asks for the next: threads that spin
            # meanwhile would take the cores from it.
            session = (
                open_session(part, optimise=optimise, threads=threads, stop_spinning=True)
                if len(part.graph)
                else None
            )
        except ORT_ERRORS as error:
            raise UnsupportedModelError(
                f"the model cannot be run here: {one_line(str(error))}."
            ) from error
        self._session = session  # None where only inputs are asked for
        self._inputs = {given.name for given in session.get_inputs()} if session else set()

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """The values for one feed, by name; raises InputError where it does not suit the model."""
        used = {name: array for name, array in feed.items() if name in self._inputs}
        try:
            made = run(self._session, used) if self._session is not None else {}
        except ORT_ERRORS as error:
            raise InputError(
                f"the model cannot be run on the samples given: {one_line(str(error))}."
            ) from error
        return {name: np.asarray(made.get(name, feed.get(name))) for name in self._names}


def _part(model: ir.Model, names: set[str]) -> ir.Model:
    copy = model.clone()
    outputs = [value for node in copy.graph for value in node.outputs if value.name in names]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(copy)
    return copy
