/* A look at an ONNX file before ONNX Runtime sees it.
 *
 * ONNX Runtime opens files that a model names ("external data"), relative to the working directory, and by a special
 * name even reads memory at an address from the file. Here only files of the model's own packed folder count, and the
 * library gets them as memory; a model that names anything else is refused before the library sees it. The file is a
 * tenant's and hostile: the walk is linear in its size, bounded in depth, does not allocate and refuses what is not
 * well-formed. Field numbers: onnx.proto3 of ONNX 1.17; wire format: the Protocol Buffers encoding guide. Pure; also
 * the fuzz target fuzz_onnx_scan. */
#ifndef BULKHEAD_ENGINE_ONNX_SCAN_H
#define BULKHEAD_ENGINE_ONNX_SCAN_H

#include "base/bundle.h"

/* Protocol Buffers messages hold at most 2 GiB, and ONNX Runtime counts in int. */
#define ONNX_MODEL_BYTES_MAX ((size_t)INT32_MAX)
/* Nested messages. A subgraph (the body of an If or Loop) adds three; protobuf itself stops at 100. */
#define ONNX_SCAN_DEPTH_MAX 64u

/* 0 when `model` is a well-formed ONNX model as far as this looks; else -ERROR_REFUSED with the reason. `folder` is
 * what it came with, NULL when it is a single file. External data is taken for initializers of the main graph only,
 * from a file of the folder, wholly inside of it: ONNX Runtime is given those files' memory by name for these, and
 * would open files for any other. */
must_check int onnx_scan(struct str model, const struct bundle *folder, struct error *err);

/* The model of a folder: model.onnx, or the only file of its top whose name ends in .onnx. -ERROR_REFUSED. */
must_check int onnx_scan_folder(const struct bundle *folder, struct str *ret_model, struct error *err);

/* Whether the main graph declares a shape (also an empty one: a scalar) for its input or output of that name. ONNX
 * Runtime reports no shape and a scalar alike. `model` has passed onnx_scan. */
bool onnx_scan_declares_shape(struct str model, struct str name, bool output);

#endif
