"""A multi-layer perceptron with fixed weights, written as ONNX: what a row needs where the size of the work matters."""

import array
import math
import os
import random
import sys

from servers import TREE

sys.path.insert(0, os.path.join(TREE, "test", "live"))

import onnx_model  # noqa: E402  (behind the path that finds it)


def weights(rows, columns, seed):
    """Bytes of FP32[rows, columns]: small, always the same, nowhere alike, so that nothing can be optimised away."""
    scale = 1 / (32768 * math.sqrt(rows))
    return array.array("f", [scale * v for v in array.array("h", random.Random(seed).randbytes(2 * rows * columns))]
                       ).tobytes()


def initializer(name, dims, data):
    return (b"".join(onnx_model.number(1, dim) for dim in dims) + onnx_model.number(2, onnx_model.FLOAT) +
            onnx_model.message(8, name) + onnx_model.message(9, data))


def mlp(sizes):
    """sizes: of the input, the layers between (ReLU) and the output; input `x`, output `y`, batches along axis 0."""
    nodes, tensors, last = b"", b"", "x"
    for i, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
        end = i == len(sizes) - 2
        result = "y" if end else "h%d" % i
        tensors += onnx_model.message(5, initializer("w%d" % i, (rows, columns), weights(rows, columns, i + 1)))
        nodes += onnx_model.message(1, onnx_model.node("MatMul", [last, "w%d" % i], [result if end else "m%d" % i]))
        if not end:
            nodes += onnx_model.message(1, onnx_model.node("Relu", ["m%d" % i], [result]))
        last = result
    graph = nodes + onnx_model.message(2, "mlp") + tensors
    graph += onnx_model.message(11, onnx_model.value_info("x", onnx_model.FLOAT, ["n", sizes[0]]))
    graph += onnx_model.message(12, onnx_model.value_info("y", onnx_model.FLOAT, ["n", sizes[-1]]))
    return (onnx_model.number(1, 8) + onnx_model.message(7, graph) +
            onnx_model.message(8, onnx_model.message(1, "") + onnx_model.number(2, 17)))
