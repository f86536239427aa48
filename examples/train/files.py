"""How the examples are written to disk: ONNX models, held-out samples, request files.

expected.py runs where neither numpy nor onnx is installed, so only save_model() imports them.
"""
import json
import pathlib
import struct

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent

# Old enough for every ONNX Runtime from 1.14 on.
OPSET = 17
IR_VERSION = 8


def fp32_text(value):
    """The shortest decimal that reads back as this very FP32 number: %.9g at worst.

    Tried by reading through a double, as most JSON readers do.
    """
    bits = struct.pack("<f", value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))          # 10, not 1e+01
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == bits:
            return text
    raise ValueError(f"{value} is no finite FP32 number")


def rows_text(rows, number):
    """A JSON array with one row to a line, so that a diff shows which sample changed."""
    lines = ["[" + ",".join(map(number, row)) + "]" for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]"


def flat_text(values):
    return "[" + ",".join(str(int(v)) for v in values) + "]"


def write_heldout(name, inputs, labels, expected):
    """examples/NAME/heldout.json; expected maps an output's name to (datatype, value per sample),
    FP32 outputs being one row per sample and INT64 outputs one number per sample."""
    outputs = ",\n".join(
        f'"{output}": ' + (rows_text(values, fp32_text) if datatype == "FP32" else flat_text(values))
        for output, (datatype, values) in expected.items())
    text = (f'{{"inputs": {rows_text(inputs, fp32_text)},\n"labels": {flat_text(labels)},\n'
            f'"expected": {{{outputs}}}}}\n')
    json.loads(text)
    (EXAMPLES / name / "heldout.json").write_text(text)


def write_request(name, tensor, shape, values, per_line):
    """examples/NAME/request.json: an Open Inference Protocol v2 request for one sample."""
    numbers = [fp32_text(v) for v in values]
    lines = [", ".join(numbers[i:i + per_line]) for i in range(0, len(numbers), per_line)]
    data = ",\n      ".join(lines)
    text = (f'{{\n  "inputs": [{{\n    "name": "{tensor}", "shape": {json.dumps(shape)}, '
            f'"datatype": "FP32",\n    "data": [\n      {data}\n    ]\n  }}]\n}}\n')
    json.loads(text)
    (EXAMPLES / name / "request.json").write_text(text)


def save_model(name, description, nodes, constants, inputs, outputs):
    """examples/NAME/NAME.onnx. constants: tensor name to array; inputs and outputs: tensor name to
    (ONNX element type, shape behind the batch axis)."""
    import numpy
    import onnx
    from onnx import helper, numpy_helper

    def described(tensors):
        return [helper.make_tensor_value_info(tensor, kind, ["batch", *shape])
                for tensor, (kind, shape) in tensors.items()]

    graph = helper.make_graph(
        nodes, name, described(inputs), described(outputs), doc_string=description,
        # Little-endian raw data: the smallest form, and the same bytes from every run.
        initializer=[numpy_helper.from_array(numpy.asarray(array), tensor)
                     for tensor, array in constants.items()])
    model = helper.make_model(graph, producer_name="bulkhead-examples", ir_version=IR_VERSION,
                              opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, EXAMPLES / name / f"{name}.onnx")
