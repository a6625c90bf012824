"""The student of pictures: few strided convolutions, one matrix, no norms.

A convolution over few pixels runs fastest as one dense matrix, and is smallest stored as its kernel. So where the matrix is small the graph
holds the kernel and makes the matrix of it when it is loaded, by convolving the unit pictures; nothing of that is left at a call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from platform_assets.stages.compression.graph import OUTPUT, GraphWriter, affine

if TYPE_CHECKING:
    import onnx

    from platform_assets.networks.preprocessing import Preprocessing

LEAST = 4  # pixels a side that are not halved any more
DENSE = 65_536  # products a row up to which a matrix is faster than a convolution


class ConvolutionalStudent(nn.Module):
    """A 5 by 5 convolution, then 3 by 3 ones, each with a stride, until four pixels a side are left, `channels` wide at first.

    `swift` steps wider: the first one by four where the side is more than sixteen, and once more when four pixels are left.
    """

    def __init__(self, preprocessing: Preprocessing, *, classes: int, channels: int, swift: bool) -> None:
        super().__init__()
        self.side, self.classes = math.isqrt(preprocessing.image_size), classes
        self.image_rate = 1.0 / preprocessing.image_scale
        side, before, after = self.side, 1, channels
        stride = 4 if swift and side > 16 else 2  # noqa: PLR2004
        layers: list[nn.Conv2d] = []
        while not layers or side > LEAST or (swift and side == LEAST):
            kernel = 3 if layers else 5
            layers.append(nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2))
            side = (side - 1) // stride + 1
            before, after, stride = after, after * 2 if swift else math.ceil(after * 1.5), 2
        if len(layers) == 1:
            layers.append(nn.Conv2d(before, after, 3, stride=1, padding=1))
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(layers[-1].out_channels * side * side, classes)

    def features(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return what the head reads, [N, features]."""
        del numeric, ids
        pixels = (image * self.image_rate).reshape(-1, 1, self.side, self.side)
        for layer in self.layers:
            pixels = torch.relu(layer(pixels))
        return pixels.flatten(1)

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return logits [N, classes]; only `image` is used."""
        logits: Tensor = self.head(self.features(numeric, ids, image))
        return logits

    def prunable(self) -> list[nn.Module]:
        """Layers whose output channels may be cut: all, for nothing is added up."""
        return list(self.layers)

    def write(self, preprocessing: Preprocessing) -> onnx.ModelProto:
        """Write the graph."""
        writer = GraphWriter()
        pixels, flat, side = writer.input("image", width=preprocessing.image_size), True, self.side
        rate = np.float32(self.image_rate)
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            weight, bias = writer.constant(layer.weight.detach().numpy() * rate), layer.bias.detach().numpy()
            how: dict[str, Any] = {"strides": list(layer.stride), "pads": [*layer.padding, *layer.padding]}
            inputs, after = layer.in_channels * side * side, (side - 1) // layer.stride[0] + 1
            outputs = layer.out_channels * after * after
            if inputs * outputs <= DENSE:
                pixels = pixels if flat else writer.add("Flatten", pixels)
                pixels, flat = _dense(writer, pixels, weight, bias, shape=(layer.in_channels, side), places=after * after, how=how), True
            else:
                shape = writer.constant(np.array([-1, layer.in_channels, side, side]))
                pixels = writer.add("Reshape", pixels, shape) if flat else pixels
                pixels, flat = writer.add("Conv", pixels, weight, writer.constant(bias), **how), False
            pixels, rate, side = writer.add("Relu", pixels), np.float32(1), after
        pixels = pixels if flat else writer.add("Flatten", pixels)
        logits = affine(writer, pixels, self.head.weight.detach().numpy().T, add=self.head.bias.detach().numpy())
        writer.add("Softmax", logits, gives=OUTPUT)
        return writer.finish(classes=self.classes)


def _dense(
    writer: GraphWriter, pixels: str, weight: str, bias: np.ndarray, *, shape: tuple[int, int], places: int, how: dict[str, Any]
) -> str:
    """Add a convolution as one product: its matrix is what the kernel makes of every unit picture."""
    channels, side = shape
    size = channels * side * side
    units = writer.add("EyeLike", writer.add("ConstantOfShape", writer.constant(np.array([size, size]))), dtype=TensorProto.FLOAT)
    units = writer.add("Reshape", units, writer.constant(np.array([size, channels, side, side])))
    matrix = writer.add("Flatten", writer.add("Conv", units, weight, **how))
    spread = writer.add("Expand", writer.constant(bias[:, None]), writer.constant(np.array([1, places])))
    return writer.add("Gemm", pixels, matrix, writer.add("Reshape", spread, writer.constant(np.array([-1]))))
