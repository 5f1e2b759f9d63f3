"""An ONNX graph as a torch module: same values, with gradients, and the weights written back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import onnx_ir as ir
from torch import Tensor, nn

from trimton.core.errors import InputError
from trimton.transforms.distill.interpreter.dtypes import Array, to_array, to_tensor
from trimton.transforms.distill.interpreter.gradient_path import require_gradients
from trimton.transforms.distill.interpreter.plan import Replacement
from trimton.transforms.distill.interpreter.program import Program
from trimton.transforms.distill.interpreter.verify import verify
from trimton.transforms.distill.interpreter.weights import collect_weights
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.normalise import normalise

BatchNorm = Literal["train", "frozen"]


class OnnxModule(nn.Module):
    """An ONNX model whose weights can be trained.

    Constants that stand as weights are parameters in the layout that the file has; all others
    are buffers. ``batch_norm`` "train" takes statistics from the batch while the module is in
    training mode and updates the running ones, "frozen" always takes those of the file.
    ``check`` is one sample, by input name: every node is computed once on what ONNX Runtime gives
    it, and compared with what ONNX Runtime makes of it. ``outputs`` are the values that training
    looks at, where these are not all outputs of the model. ``largest_difference`` is what the
    check found, relative to the largest value of a node's output (None: nothing was checked).

    Raises UnsupportedModelError where no gradient is known of an operator between the weights and
    the outputs, or where a node differs from ONNX Runtime; InputError for a file that is no model.
    """

    def __init__(
        self,
        model: ir.Model | Path | str,
        *,
        batch_norm: BatchNorm = "train",
        check: Mapping[str, Array] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, ir.Model):
            self._model = normalise(model.clone())
        else:
            self._model = load_model(Path(model))
        self._batch_norm = batch_norm
        self._by_name = dict(_named_values(self._model.graph))
        self._programs: dict[tuple[str, ...], Program] = {}
        self.outputs = tuple(outputs or (value.name or "" for value in self._model.graph.outputs))
        self.largest_difference: float | None = None
        weights = collect_weights(self._model, reserved=(*dir(self), "_weights"))
        self._weights = {weight.name: weight for weight in weights}
        for weight in self._weights.values():
            tensor = to_tensor(weight.array())
            if weight.learns:
                self.register_parameter(weight.key, nn.Parameter(tensor))
            else:
                self.register_buffer(weight.key, tensor)
        nodes = self._program(self.outputs).nodes
        require_gradients(self._model, nodes, self._weights.values())
        if check is not None:
            program, given = self._program(self.outputs), self._given(_tensors(check))
            self.largest_difference = verify(self._model, program, given, check)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model's inputs."""
        return tuple(value.name or "" for value in self._model.graph.inputs)

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters under the names that their constants have in the model."""
        for name, weight in self._weights.items():
            if weight.learns:
                yield name, self.get_parameter(weight.key)

    def forward(
        self,
        feeds: Mapping[str, Tensor],
        want: Sequence[str] | None = None,
        *,
        replace: Mapping[str, Replacement] | None = None,
    ) -> dict[str, Tensor]:
        """The values named in ``want`` (None: the outputs) for ``feeds``, inputs by name.

        Any value of the main graph may be asked for; only what it depends on is computed.
        ``replace`` puts, by the name of an input, a weight or any other value, a function of it in
        its place for all that reads it, and where it is asked for: fake quantisation, noise, masks.
        Raises InputError for a name that the model lacks or a feed that does not suit it.
        """
        names = self.outputs if want is None else tuple(want)
        for name in replace or ():
            self._value(name)
        values = self._program(names).run(
            self._given(feeds),
            from_batch=self.training and self._batch_norm == "train",
            replace=replace,
        )
        return dict(zip(names, values, strict=True))

    def to_onnx(self) -> ir.Model:
        """A copy of the model with the weights and running statistics as they are now.

        Constants that did not change keep their tensors, so an untrained module gives the same
        model back.
        """
        model = self._model.clone()
        for weight, value in zip(collect_weights(model), self._weights.values(), strict=True):
            if not (value.learns or value.is_statistic):
                continue
            old = weight.array()
            new = to_array(getattr(self, value.key)).astype(old.dtype, copy=True)
            if new.tobytes() != old.tobytes():
                weight.value.const_value = ir.tensor(new, name=weight.value.name)
        return model

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for program in self._programs.values():  # their constants are of the old type or place
            program.forget()
        converted: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return converted

    def _program(self, names: tuple[str, ...]) -> Program:
        if names not in self._programs:
            weights = [weight.value for weight in self._weights.values()]
            fixed = [w.value for w in self._weights.values() if not (w.learns or w.is_statistic)]
            self._programs[names] = Program(
                self._model.graph,
                [self._value(name) for name in names],
                [*self._model.graph.inputs, *weights],
                opsets=self._model.opset_imports,
                fixed=fixed,
            )
        return self._programs[names]

    def _given(self, feeds: Mapping[str, Tensor]) -> list[Tensor]:
        if missing := [name for name in self.inputs if name not in feeds]:
            raise InputError(
                f"the samples lack {missing[0]!r}; the model takes {', '.join(self.inputs)}."
            )
        weights = (getattr(self, weight.key) for weight in self._weights.values())
        return [*(feeds[name] for name in self.inputs), *weights]

    def _value(self, name: str) -> ir.Value:
        if name not in self._by_name:
            raise InputError(
                f"the model has no value {name!r}; name an input, a weight or a result."
            )
        return self._by_name[name]


def _named_values(graph: ir.Graph) -> Iterator[tuple[str, ir.Value]]:
    for value in (*graph.inputs, *graph.initializers.values()):
        yield value.name or "", value
    for node in graph:
        for value in node.outputs:
            if value.name:
                yield value.name, value


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: to_tensor(array) for name, array in arrays.items()}
