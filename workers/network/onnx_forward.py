"""The forward pass on a CPU by ONNX Runtime: the same folded network, 1.2 to 1.5 times as fast as by torch.

The graph is written and compiled in memory when a worker starts, which takes a fraction of a second; there is no
file that could go stale. Only the layers of convolutional networks with ReLUs are known here: for attention and large
matrices ONNX Runtime is no faster than torch.
"""

import operator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from lookalike.encoders import Preprocessing
from workers.network.architectures import Network
from workers.network.efficientnet_lite import PaddedRelu6

# Versions of operators and format that have long been read by every ONNX Runtime that `worker` allows.
_OPSET, _IR_VERSION = 17, 8


class UnsupportedLayerError(Exception):
    """The network has a layer that is not translated."""


class OnnxForward:
    """A forward pass like TorchForward, on one core for each thread that calls.

    Raises UnsupportedLayerError for a network with other layers than those that are translated.
    """

    name = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = _Graph(network, preprocessing).model.SerializeToString()
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        features, *logits = self._session.run(None, {"pixels": np.ascontiguousarray(batch)})
        return torch.from_numpy(features), torch.from_numpy(logits[0]) if logits else None


class _LayerTracer(fx.Tracer):
    """Follows the network down to its layers; what has no children is a layer, whoever wrote it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002  (torch calls it so)
        return not any(True for _ in m.children())


class _Graph:
    """Translates a network into an ONNX model: input `pixels`, outputs `features` and perhaps `logits`."""

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._names: dict[fx.Node, str] = {}
        self._layers = dict(network.named_modules())
        crop = preprocessing.crop
        outputs = self._translate(_LayerTracer().trace(network), preprocessing)
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", crop, crop, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None]) for name in outputs],
            self._weights,
        )
        self.model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(self.model)

    def _translate(self, traced: fx.Graph, preprocessing: Preprocessing) -> list[str]:
        """Writes a node for each step of the traced network; returns the names of the outputs."""
        for step in traced.nodes:
            if step.op == "placeholder":
                self._names[step] = self._centred(preprocessing)
            elif step.op == "output":
                given = [self._names[one] for one in step.args[0] if one is not None]
                return [
                    self._add("Identity", [name], name=label)
                    for name, label in zip(given, ("features", "logits"), strict=False)
                ]
            elif step.op == "call_module":
                self._names[step] = self._layer(self._layers[step.target], self._names[step.args[0]])
            else:
                self._names[step] = self._function(step)
        raise AssertionError("torch.fx ends every graph with its output")

    def _centred(self, preprocessing: Preprocessing) -> str:
        # In this order bytes are moved, not floats, and the subtraction runs along rows.
        mean = 255 * np.array(preprocessing.mean, np.float64).reshape(3, 1, 1)
        planes = self._add(
            "Cast", [self._add("Transpose", ["pixels"], perm=[0, 3, 1, 2])], to=TensorProto.FLOAT
        )
        return self._add("Sub", [planes, self._constant(mean.astype(np.float32))])

    def _layer(self, layer: nn.Module, given: str) -> str:
        if isinstance(layer, nn.Conv2d):
            return self._convolution(layer, given)
        if isinstance(layer, nn.Linear):
            return self._add("Gemm", [given, *self._parameters(layer)], transB=1)
        if isinstance(layer, nn.ReLU):
            return self._add("Relu", [given])
        if isinstance(layer, nn.MaxPool2d) and layer.dilation == 1 and not layer.ceil_mode:
            kernel, stride, padding = (
                _pair(value) for value in (layer.kernel_size, layer.stride, layer.padding)
            )
            return self._add("MaxPool", [given], kernel_shape=kernel, strides=stride, pads=padding * 2)
        if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
            return self._add("GlobalAveragePool", [given])
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            return self._add("Flatten", [given], axis=1)
        if isinstance(layer, nn.Identity | nn.Dropout):
            return given
        raise UnsupportedLayerError(type(layer).__name__)

    def _convolution(self, layer: nn.Conv2d, given: str) -> str:
        if not isinstance(layer.padding, tuple) or layer.padding_mode != "zeros":
            raise UnsupportedLayerError(f"a convolution padded with {layer.padding_mode} {layer.padding}")
        made = self._add(
            "Conv",
            [given, *self._parameters(layer)],
            strides=layer.stride,
            pads=layer.padding * 2,
            dilations=layer.dilation,
            group=layer.groups,
        )
        if isinstance(layer, PaddedRelu6):
            return self._add("Clip", [made, self._constant(np.float32(0)), self._constant(np.float32(6))])
        return made

    def _function(self, step: fx.Node) -> str:
        """Sums, flattening from the first dimension on, and the mean over the picture."""
        arguments = step.args[1:]
        if step.target in (operator.add, operator.iadd, torch.add):
            return self._add("Add", [self._names[one] for one in step.all_input_nodes])
        if step.target is torch.flatten and arguments == (1,):
            return self._add("Flatten", [self._names[step.all_input_nodes[0]]], axis=1)
        if step.target == "mean" and arguments == ((2, 3),):
            return self._add("ReduceMean", [self._names[step.all_input_nodes[0]]], axes=[2, 3], keepdims=0)
        raise UnsupportedLayerError(str(step.target))

    def _add(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        name = name or f"step{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _parameters(self, layer: nn.Conv2d | nn.Linear) -> list[str]:
        return [
            self._constant(value.detach().numpy())
            for value in (layer.weight, layer.bias)
            if value is not None
        ]

    def _constant(self, value: NDArray[np.float32] | np.float32) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
