#!/bin/sh
# Trains both example networks anew and rewrites everything that derives from them. (The language model: models/train.py.)
#
#   examples/train/retrain.sh [LIBONNXRUNTIME]
#
# Needs Debian's python3-sklearn, python3-onnx and python3-numpy, and libonnxruntime.so.1 (default: the
# one that the build fetched). Takes about 15 seconds on one core.
#
# The models come out the same to the byte: fixed seeds, FP64 training, and a single rounding to FP32
# that swallows what the order of additions does. Tried with the reference BLAS and OpenBLAS (AVX2 and
# AVX-512), with and without numpy's own vector code. The expected outputs are ONNX Runtime's FP32
# arithmetic and may differ in the last bits on another processor.
set -eu
cd "$(dirname "$0")"

export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

/usr/bin/python3 digits.py
/usr/bin/python3 diagnosis.py
/usr/bin/python3 expected.py "$@"

cd ..
sha256sum -- */*.onnx */*.gguf */heldout.json */request.json >SHA256SUMS
