#!/usr/bin/env python3
"""Trains the `digits` example: a small convolutional net on scikit-learn's bundled load_digits.

Writes examples/digits/{digits.onnx, heldout.json, request.json}; expected.py then fills in what
ONNX Runtime answers. Run through retrain.sh.
"""
import numpy as np
from onnx import TensorProto, helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import files
import nets

SEED = 20
PIXEL_MAX = 16.0


def build(rng):
    return [nets.Conv3x3(rng, 1, 8), nets.Relu(),
            nets.Conv3x3(rng, 8, 16), nets.Relu(), nets.MaxPool2x2(),
            nets.Flatten(), nets.Dense(rng, 256, 32), nets.Relu(), nets.Dense(rng, 32, 10)]


def export(layers):
    conv1, _, conv2, _, _, _, hidden, _, head = layers
    constants = {
        # The net learnt on pixels from 0 to 1 and is served pixels from 0 to 16, as they are in
        # the data set. The scale goes into the first weights; zero padding stays zero.
        "conv1.weight": np.float32(conv1.weight / PIXEL_MAX),
        "conv1.bias": np.float32(conv1.bias),
        "conv2.weight": np.float32(conv2.weight),
        "conv2.bias": np.float32(conv2.bias),
        "hidden.weight": np.float32(hidden.weight),
        "hidden.bias": np.float32(hidden.bias),
        "head.weight": np.float32(head.weight),
        "head.bias": np.float32(head.bias),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "conv1.weight", "conv1.bias"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"]),
        node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p2"], ["flat"], axis=1),
        node("Gemm", ["flat", "hidden.weight", "hidden.bias"], ["h"]),
        node("Relu", ["h"], ["rh"]),
        node("Gemm", ["rh", "head.weight", "head.bias"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
        node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    files.save_model("digits", "Handwritten digit, 8x8 pixels from 0 (paper) to 16 (ink).",
                     nodes, constants,
                     {"image": (TensorProto.FLOAT, [1, 8, 8])},
                     {"probabilities": (TensorProto.FLOAT, [10]), "label": (TensorProto.INT64, [])})


def main():
    data = load_digits()
    images, images_held, labels, labels_held = train_test_split(
        data.images[:, None], data.target, test_size=0.2, stratify=data.target, random_state=SEED)
    rng = np.random.default_rng(SEED)
    layers = build(rng)
    # Chosen by cross-validation inside the training part; the held-out part was not looked at.
    nets.train(layers, nets.softmax_loss_gradient, images / PIXEL_MAX, labels, rng,
               epochs=30, decay=0.05)
    export(layers)
    rows = images_held.reshape(len(images_held), -1)
    files.write_heldout("digits", rows, labels_held, {})
    files.write_request("digits", "image", [1, 1, 8, 8], rows[0], per_line=8)


if __name__ == "__main__":
    main()
