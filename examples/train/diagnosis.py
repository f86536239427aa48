#!/usr/bin/env python3
"""Trains the `diagnosis` example: a small dense net on scikit-learn's bundled load_breast_cancer.

Writes examples/diagnosis/{diagnosis.onnx, heldout.json, request.json}; expected.py then fills in
what ONNX Runtime answers. Run through retrain.sh.
"""
import numpy as np
from onnx import TensorProto, helper
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import files
import nets

SEED = 20
FEATURES = 30
HIDDEN = 16


def export(layers, mean, deviation):
    hidden, _, head = layers
    constants = {
        # Standardisation is part of the graph, so that clients send plain measurements. It stays
        # two nodes of its own: folded into the weights it would subtract large, nearly equal FP32
        # numbers (areas reach 4254 where compactness stays below 1).
        "mean": np.float32(mean),
        "scale": np.float32(1.0 / deviation),
        "hidden.weight": np.float32(hidden.weight),
        "hidden.bias": np.float32(hidden.bias),
        "head.weight": np.float32(head.weight),
        "head.bias": np.float32(head.bias),
        "zero": np.float32(0.0),
        "last_axis": np.int64([1]),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["features", "mean"], ["centred"]),
        node("Mul", ["centred", "scale"], ["standard"]),
        node("Gemm", ["standard", "hidden.weight", "hidden.bias"], ["h"]),
        node("Relu", ["h"], ["rh"]),
        node("Gemm", ["rh", "head.weight", "head.bias"], ["logit"]),
        node("Sigmoid", ["logit"], ["probability"]),
        node("Greater", ["logit", "zero"], ["malignant"]),
        node("Squeeze", ["malignant", "last_axis"], ["flag"]),
        node("Cast", ["flag"], ["label"], to=TensorProto.INT64),
    ]
    files.save_model("diagnosis", "Probability that a breast mass is malignant; label 1 = malignant.",
                     nodes, constants,
                     {"features": (TensorProto.FLOAT, [FEATURES])},
                     {"probability": (TensorProto.FLOAT, [1]), "label": (TensorProto.INT64, [])})


def main():
    data = load_breast_cancer()
    # scikit-learn counts benign as 1. A finding is the positive case here: malignant is 1.
    malignant = 1 - data.target
    rows, rows_held, labels, labels_held = train_test_split(
        data.data, malignant, test_size=0.2, stratify=malignant, random_state=SEED)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    rng = np.random.default_rng(SEED)
    layers = [nets.Dense(rng, FEATURES, HIDDEN), nets.Relu(), nets.Dense(rng, HIDDEN, 1)]
    # Chosen by cross-validation inside the training part; the held-out part was not looked at.
    nets.train(layers, nets.sigmoid_loss_gradient, (rows - mean) / deviation, labels, rng,
               epochs=100, decay=0.1)
    export(layers, mean, deviation)
    # As FP32, because that is what a client sends and what the file must give back exactly.
    samples = np.float32(rows_held)
    files.write_heldout("diagnosis", samples, labels_held, {})
    files.write_request("diagnosis", "features", [1, FEATURES], samples[0], per_line=10)


if __name__ == "__main__":
    main()
