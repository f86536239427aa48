/* A look at an ONNX file before ONNX Runtime sees it.
 *
 * ONNX Runtime opens files that a model names ("external data"), relative to the working directory, and by a special
 * name even reads memory at an address from the file. A model here is one file and nothing else, so such a model is
 * refused before the library sees it. The file is a tenant's and hostile: the walk is linear in its size, bounded in
 * depth, does not allocate and refuses what is not well-formed. Field numbers: onnx.proto3 of ONNX 1.17; wire format:
 * the Protocol Buffers encoding guide. Pure; also the fuzz target fuzz_onnx_scan. */
#ifndef BULKHEAD_ENGINE_ONNX_SCAN_H
#define BULKHEAD_ENGINE_ONNX_SCAN_H

#include "base/error.h"
#include "base/str.h"

/* Protocol Buffers messages hold at most 2 GiB, and ONNX Runtime counts in int. */
#define ONNX_MODEL_BYTES_MAX ((size_t)INT32_MAX)
/* Nested messages. A subgraph (the body of an If or Loop) adds three; protobuf itself stops at 100. */
#define ONNX_SCAN_DEPTH_MAX 64u

/* 0 when `model` is a well-formed single-file ONNX model as far as this looks; else -ERROR_REFUSED with the reason. */
must_check int onnx_scan(struct str model, struct error *err);

/* Whether the main graph declares a shape (also an empty one: a scalar) for its input or output of that name. ONNX
 * Runtime reports no shape and a scalar alike. `model` has passed onnx_scan. */
bool onnx_scan_declares_shape(struct str model, struct str name, bool output);

#endif
