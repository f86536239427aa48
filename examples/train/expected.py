#!/usr/bin/env python3
"""Fills in the expected outputs of the held-out samples from ONNX Runtime itself.

    expected.py [--check] [LIBRARY]

LIBRARY is libonnxruntime.so.1 (default: the one that the build fetched). Every sample is run alone,
at batch size 1, on one thread. Without --check the answers are written into heldout.json; with it they
are compared with what is there, bit for bit. Either way the accuracy must reach its floor.

A processor with other vector instructions rounds differently in the last bits, so --check may fail
there although nothing is wrong: tests compare with ONNX Runtime run on the same machine.
"""
import json
import pathlib
import struct
import sys

import files
import ort

LIBRARY = files.EXAMPLES.parent / "build" / "engines" / "libonnxruntime.so.1"

# name: (input, its shape for one sample, outputs with datatype, accuracy floor)
MODELS = {
    "digits": ("image", [1, 1, 8, 8], {"probabilities": "FP32", "label": "INT64"}, 0.97),
    "diagnosis": ("features", [1, 30], {"probability": "FP32", "label": "INT64"}, 0.95),
}


def answers(session, tensor, shape, outputs, rows):
    """Output name to (datatype, values): a row per sample for FP32, a number per sample else."""
    collected = {output: (datatype, []) for output, datatype in outputs.items()}
    for row in rows:
        for (datatype, values), numbers in zip(collected.values(),
                                               session.run(tensor, shape, row, list(outputs))):
            values.append(numbers if datatype == "FP32" else numbers[0])
    return collected


def as_bits(datatype, values):
    if datatype != "FP32":
        return values
    return [struct.pack(f"<{len(row)}f", *row) for row in values]


def refresh(name, library, check):
    tensor, shape, outputs, floor = MODELS[name]
    session = ort.Session(library, (files.EXAMPLES / name / f"{name}.onnx").read_bytes())
    heldout = json.loads((files.EXAMPLES / name / "heldout.json").read_text())
    found = answers(session, tensor, shape, outputs, heldout["inputs"])
    labels = heldout["labels"]
    right = sum(a == b for a, b in zip(found["label"][1], labels))
    print(f"{name}: {right} of {len(labels)} held-out samples right ({right / len(labels):.2%}), "
          f"ONNX Runtime {session.version}")
    if right / len(labels) < floor:
        sys.exit(f"{name}: below the floor of {floor:.0%}")
    if not check:
        files.write_heldout(name, heldout["inputs"], labels, found)
        return
    for output, (datatype, values) in found.items():
        if as_bits(datatype, values) != as_bits(datatype, heldout["expected"][output]):
            sys.exit(f"{name}: {output} differs from heldout.json")


def main():
    arguments = sys.argv[1:]
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    library = pathlib.Path(rest[0]) if rest else LIBRARY
    for name in MODELS:
        refresh(name, library, check)


if __name__ == "__main__":
    main()
