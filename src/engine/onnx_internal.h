/* What the files of the onnx engine share. See engine_onnx.c for the life of it all. */
#ifndef BULKHEAD_ENGINE_ONNX_INTERNAL_H
#define BULKHEAD_ENGINE_ONNX_INTERNAL_H

#include "base/buf.h"
#include "base/bundle.h"
#include "engine/engine_pending.h"
#include "engine/onnx_error.h"

#include <onnxruntime_c_api.h>

/* All strings of one BYTES output, with their length prefixes; and their offsets, 8 bytes each. */
#define ONNX_STRINGS_BYTES_MAX (1 * GIB)

struct onnx {
    struct engine engine;
    struct engine_pending pending;
    const OrtApi *api;
    OrtSession *session;
    OrtRunOptions *run_options; /* one for all steps: cancel sets its terminate flag */
    OrtMemoryInfo *memory;
    OrtAllocator *allocator; /* the library's default, not owned */
    struct buf strings;      /* a BYTES output in wire form; keeps its memory from step to step */
    struct buf offsets;      /* size_t per element */
    struct tensor_signature signature;
};

/* --- onnx_library.c --- */

/* Loads the library and creates its environment, once for the process's life: its thread-locals and exit handlers make
 * unloading unsafe, and at level `shared` several models use it. A second call ignores where the library lies.
 * Thread-safe.
 */
must_check int onnx_library_open(const struct engine_options *options, const OrtApi **ret_api, const OrtEnv **ret_env,
                                 struct error *err);
/* A session on a model in memory, which has passed onnx_scan. Its bytes are copied; those of `folder` (NULL: none) are
 * used in place and must outlive the session. */
must_check int onnx_session_open(const OrtApi *api, const OrtEnv *env, struct str model, const struct bundle *folder,
                                 uint32_t threads, OrtSession **ret_session, struct error *err);

/* --- onnx_describe.c --- */

/* TENSOR_INVALID for an element type that the protocol does not have. */
enum tensor_dtype onnx_dtype(ONNXTensorElementDataType type);
ONNXTensorElementDataType onnx_element_type(enum tensor_dtype dtype);
/* Fills *signature from the session; `model` is the file it came from. -ERROR_REFUSED says what cannot be served. */
must_check int onnx_describe_session(const OrtApi *api, const OrtSession *session, struct str model,
                                     struct tensor_signature *signature, struct error *err);

/* --- onnx_values.c --- */

/* A value on the view's own memory, or for BYTES a copy. */
must_check int onnx_value_from_view(struct onnx *onnx, const struct tensor_view *view, OrtValue **ret_value,
                                    struct error *err);
/* Checks output `index` against the signature and gives it to the sink. */
must_check int onnx_value_give(struct onnx *onnx, uint32_t index, OrtValue *value, const struct engine_sink *sink,
                               struct error *err);

#endif
