"""Build well-known architectures from the graphs that the onnx package ships.

Those have no trained weights.

Those graphs hold one constant for every weight, and so give one value for every class whatever the
image. Here they get seeded weights and, from these, the statistics that a trained network would
have. Nothing is downloaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.backend.test
from onnx import numpy_helper, shape_inference

RESIDUAL_SCALE = 0.3

Array = npt.NDArray[np.float64]


def resnet50(out: Path) -> None:
    """ResNet-50, 224 x 224, 1000 classes: Conv, BatchNormalization, Relu and Sum."""
    _build("resnet50", out)


def densenet121(out: Path) -> None:
    """DenseNet-121, 224 x 224, 1000 classes: 58 Concat, BatchNormalization before Mul and Add."""
    _build("densenet121", out)


def squeezenet(out: Path) -> None:
    """SqueezeNet 1.0, 224 x 224, 1000 classes: Conv with bias and no normalization, Dropout."""
    _build("squeezenet", out)


def shufflenet(out: Path) -> None:
    """ShuffleNet, 224 x 224, 1000 classes: grouped Conv and channel shuffles.

    A shuffle is Reshape, Transpose, Reshape.
    """
    _build("shufflenet", out)


def _build(name: str, out: Path) -> None:
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    _Weights(model).fill()
    onnx.checker.check_model(model)
    onnx.save(model, out)


@dataclass(frozen=True)
class _Moments:
    """Mean and variance of a tensor over images and positions.

    They have its shape, with the two spatial axes reduced to 1.
    """

    mean: Array
    variance: Array

    def reshaped(self, shape: tuple[int, ...]) -> _Moments:
        return _Moments(self.mean.reshape(shape), self.variance.reshape(shape))


class _Weights:
    """Fills a graph with weights, in the order of its nodes.

    It follows the moments of every activation.

    He initialisation alone lets the activations of deep networks forget the image: each layer's
    mean, which depends on the weights only, soon outweighs what varies. Centring every layer, as
    trained batch normalization does, keeps them apart. The moments are found in closed form, in
    float64 and without running the network: the same weights, bit for bit, come out on every
    machine.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        model.ir_version = max(
            model.ir_version, 4
        )  # From 4 on, an initializer isn't also an input.
        self.rng = np.random.default_rng(0)
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
        self.shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.integers = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in self.graph.initializer
            if tensor.data_type == onnx.TensorProto.INT64
        }
        self.weights: dict[str, Array] = {}
        self.moments: dict[str, _Moments] = {}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def fill(self) -> None:
        """Give every float weight a value, stored as an initializer.

        What made the constants is dropped.
        """
        parameters = {tensor.name for tensor in self.graph.initializer}
        parameters |= {
            node.output[0] for node in self.graph.node if node.op_type == "ConstantOfShape"
        }
        (image,) = [value.name for value in self.graph.input if value.name not in parameters]
        # Images are normalized before they reach such a network.
        self.moments[image] = _Moments(np.zeros((1, 3, 1, 1)), np.ones((1, 3, 1, 1)))
        for node in self.graph.node:
            if node.op_type != "ConstantOfShape":
                self._visit(node)

        kept = [node for node in self.graph.node if node.op_type != "ConstantOfShape"]
        used = {name for node in kept for name in node.input}
        tensors = [
            numpy_helper.from_array(value, name)
            for name, value in self.integers.items()
            if name in used
        ]
        tensors += [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in sorted(self.weights.items())
        ]
        inputs = [value for value in self.graph.input if value.name == image]
        for field, values in (("node", kept), ("initializer", tensors), ("input", inputs)):
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(values)

    def _visit(self, node: onnx.NodeProto) -> None:
        match node.op_type:
            case "Conv":
                moments = self._conv(node)
            case "Gemm":
                moments = self._gemm(node)
            case "BatchNormalization":
                moments = self._batch_norm(node)
            case "Relu":
                moments = _rectified(self.moments[node.input[0]])
            case "Sum":
                parts = [self.moments[name] for name in node.input]
                # Branches of a residual network see different weights: as good as independent.
                mean, variance = sum(p.mean for p in parts), sum(p.variance for p in parts)
                moments = _Moments(mean, variance)  # type: ignore[arg-type]
            case "Concat":
                parts = [self.moments[name] for name in node.input]
                moments = _Moments(
                    np.concatenate([p.mean for p in parts], 1),
                    np.concatenate([p.variance for p in parts], 1),
                )
            case "Mul" | "Add" | "Unsqueeze":
                moments = self._scale_and_shift(node)
            case "Reshape":
                shape = self.shapes[node.output[0]]
                moments = self.moments[node.input[0]].reshaped(
                    (*shape[:2], *shape[2:-2], *(1 for _ in shape[2:][-2:]))
                )
            case "Transpose":
                (order,) = [list(attribute.ints) for attribute in node.attribute]
                before = self.moments[node.input[0]]
                moments = _Moments(
                    before.mean.transpose(order), before.variance.transpose(order)
                )
            case "MaxPool":
                before = self.moments[node.input[0]]
                # The greatest of 3 x 3 standard normals has mean 1.485 and variance 0.357 (order
                # statistics); one of them, rectified as here, has 0.399 and 0.341. Without this,
                # the excess would grow layer by layer.
                deviation = np.sqrt(before.variance)
                moments = _Moments(
                    before.mean + (1.485 - 0.399) / 0.341**0.5 * deviation, before.variance
                )
            case "AveragePool" | "GlobalAveragePool" | "Dropout" | "Softmax":
                moments = self.moments[node.input[0]]
            case other:
                raise NotImplementedError(f"no moments of {other}")
        self.moments[node.output[0]] = moments

    def _conv(self, node: onnx.NodeProto) -> _Moments:
        groups = next(
            (attribute.i for attribute in node.attribute if attribute.name == "group"), 1
        )
        weights = self._he(node.input[1])
        before = self.moments[node.input[0]]
        # Per group, as (group, output channel, input channel); what a kernel covers adds up.
        grouped = weights.reshape(groups, -1, *weights.shape[1:3], weights.shape[3])
        mean = np.einsum(
            "goi,gi->go", grouped.sum((-2, -1)), before.mean.reshape(groups, -1)
        )
        variance = np.einsum(
            "goi,gi->go",
            np.square(grouped).sum((-2, -1)),
            before.variance.reshape(groups, -1),
        )
        after = _Moments(mean.reshape(1, -1, 1, 1), variance.reshape(1, -1, 1, 1))
        return after if len(node.input) < 3 else self._centred(node, after)

    def _gemm(self, node: onnx.NodeProto) -> _Moments:
        weights = self._he(node.input[1])
        before = self.moments[node.input[0]]
        after = _Moments(before.mean @ weights.T, before.variance @ np.square(weights).T)
        return self._centred(node, after)

    def _centred(self, node: onnx.NodeProto, after: _Moments) -> _Moments:
        """Where no batch normalization follows, weights and bias do its work."""
        deviation = np.sqrt(after.variance).ravel()
        weights, bias = node.input[1], node.input[2]
        self.weights[weights] /= deviation.reshape(
            -1, *(1 for _ in self.weights[weights].shape[1:])
        )
        shift = self._around(0.0, deviation.shape)
        self.weights[bias] = shift - after.mean.ravel() / deviation
        return _Moments(shift.reshape(after.mean.shape), np.ones_like(after.variance))

    def _batch_norm(self, node: onnx.NodeProto) -> _Moments:
        before = self.moments[node.input[0]]
        channels = (before.mean.size,)
        _, scale, bias, mean, variance = node.input
        users = self.users[node.output[0]]
        # What a residual block adds is small in trained networks (their last scale starts at 0:
        # Goyal et al. 2017). With 1 in its place, errors grow from block to block as in no network
        # that somebody would ship.
        added = users[0].op_type == "Sum" and users[0].input[0] == node.output[0]
        self.weights[scale] = self._around(1.0, channels) * (
            RESIDUAL_SCALE if added else 1.0
        )
        self.weights[bias] = self._around(0.0, channels)
        self.weights[mean] = before.mean.ravel()
        self.weights[variance] = before.variance.ravel()
        after = _Moments(self.weights[bias], np.square(self.weights[scale]))
        return after.reshaped(before.mean.shape)

    def _scale_and_shift(self, node: onnx.NodeProto) -> _Moments:
        """DenseNet's own scale and shift after each batch normalization.

        Unsqueeze a weight, then Mul, then Add.
        """
        if node.op_type == "Unsqueeze":
            (user,) = self.users[node.output[0]]
            channels = self.shapes[node.input[0]]
            self.weights[node.input[0]] = self._around(
                1.0 if user.op_type == "Mul" else 0.0, channels
            )
            factor = self.weights[node.input[0]].reshape(1, -1, 1, 1)
            return _Moments(factor, np.zeros_like(factor))
        before, weight = (self.moments[name] for name in node.input)
        if node.op_type == "Add":
            return _Moments(before.mean + weight.mean, before.variance)
        return _Moments(before.mean * weight.mean, before.variance * np.square(weight.mean))

    def _he(self, name: str) -> Array:
        """He initialisation: normal, with a variance of 2 / fan-in.

        See He et al. 2015, for rectified inputs.
        """
        shape = self.shapes[name]
        fan_in = math.prod(shape[1:])
        self.weights[name] = self.rng.standard_normal(shape) * math.sqrt(2 / fan_in)
        return self.weights[name]

    def _around(self, centre: float, shape: tuple[int, ...]) -> Array:
        return centre + 0.1 * self.rng.standard_normal(shape)


def _rectified(before: _Moments) -> _Moments:
    """Moments of max(x, 0) for a normal x, in closed form."""
    deviation = np.sqrt(before.variance)
    z = before.mean / deviation
    density = np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi)
    below = np.array(
        [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z.ravel()]
    ).reshape(z.shape)
    mean = before.mean * below + deviation * density
    square = (
        np.square(before.mean) + before.variance
    ) * below + before.mean * deviation * density
    return _Moments(mean, square - np.square(mean))
