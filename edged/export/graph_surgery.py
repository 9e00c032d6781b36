"""Takes a published graph apart: the values of all its tensors, and other inputs in their place.

Names of operators and tensors say nothing reliable about a graph that was exported, optimised and
quantised by others. What a tensor is can be seen from its values, though: the caller feeds a graph
with chosen inputs and recognises what it looks for in the results of all operators.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edged.errors import ModelError
from edged.export.weights import Array


class Surgery:
    """One graph that is being changed. Operators stay in an order in which they can run."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self._count = 0

    @classmethod
    def open(cls, path: Path) -> Surgery:
        """Reads a graph in ORT's format. Raises ModelError, which names the file."""
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch, "graph.onnx")
            options = _options()
            options.optimized_model_filepath = str(target)
            try:
                ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
                model = onnx.load(target)
            except Exception as error:  # ONNX Runtime has a class of its own for each fault
                raise ModelError(f"{path} cannot be read by ONNX Runtime ({error})") from error
        return cls(model)

    # ---- looking ----
    def values(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The result of every operator for these inputs, and the inputs themselves, by name."""
        probe = onnx.ModelProto()
        probe.CopyFrom(self.model)
        names = [name for node in probe.graph.node for name in node.output if name]
        del probe.graph.output[:]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = ort.InferenceSession(
            probe.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
        )
        return {**dict(zip(names, session.run(names, dict(feed)), strict=True)), **feed}

    def nodes(self, *kinds: str) -> list[onnx.NodeProto]:
        """The operators of these kinds, in their order."""
        return [node for node in self.graph.node if node.op_type in kinds]

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The operator that gives a tensor; None for inputs and constants."""
        return next((node for node in self.graph.node if name in node.output), None)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """The operators that need a tensor."""
        return [node for node in self.graph.node if name in node.input]

    def dependent_on(self, inputs: Iterable[str]) -> set[str]:
        """All tensors whose values depend on those of `inputs`; not on their shapes alone."""
        found = set(inputs)
        for node in self.graph.node:
            if node.op_type not in ("Shape", "Size") and found.intersection(node.input):
                found.update(node.output)
        return found

    # ---- changing ----
    def const(self, value: Any) -> str:
        """Adds a constant and returns its name."""
        name = self._name()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        """Adds an int64 vector and returns its name."""
        return self.const(np.array(values, np.int64))

    def input(self, name: str, kind: int, shape: list[int | str]) -> str:
        """Adds an input and returns its name."""
        self.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: list[int | str]) -> None:
        """Declares a tensor that there is as an output."""
        self.graph.output.append(helper.make_tensor_value_info(name, kind, shape))

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Adds an operator with one output behind all others and returns the output's name."""
        return self.ops(kind, *inputs, outs=[out], **attributes)[0]

    def ops(self, kind: str, *inputs: str, outs: list[str], **attributes: Any) -> list[str]:
        """Adds an operator with several outputs; "" gives an output a name."""
        outs = [out or self._name() for out in outs]
        self.graph.node.append(helper.make_node(kind, list(inputs), outs, **attributes))
        return outs

    def replace(self, old: str, new: str, only: Iterable[onnx.NodeProto] | None = None) -> None:
        """Operators (all, or `only` these) that need `old` get `new` in its place."""
        for node in self.graph.node if only is None else only:
            for at, name in enumerate(node.input):
                if name == old and new not in node.output:
                    node.input[at] = new

    def finish(self, path: Path, form: str) -> None:
        """Sorts the operators, removes what no output needs, and writes the graph.

        form: what the graph is now, kept in its metadata.
        """
        self._sort()
        needed = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        for field in (self.graph.initializer, self.graph.input):
            left = [value for value in field if value.name in needed]
            del field[:]
            field.extend(left)
        del self.graph.value_info[:]
        helper.set_model_props(self.model, {"edged.form": form})
        onnx.save(self.model, path)

    def _sort(self) -> None:
        """Operators behind all that they need: those that were added stand at the end."""
        known = {value.name for value in self.graph.input} | {""}
        known |= {value.name for value in self.graph.initializer}
        waiting, done = list(self.graph.node), []
        while waiting:
            ready = [node for node in waiting if known.issuperset(node.input)]
            if not ready:
                raise ValueError("the operators need each other")
            left = []
            for node in waiting:
                if known.issuperset(node.input):
                    done.append(node)
                    known.update(node.output)
                else:
                    left.append(node)
            waiting = left
        del self.graph.node[:]
        self.graph.node.extend(done)

    def _name(self) -> str:
        self._count += 1
        return f"edged_{self._count}"


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options
