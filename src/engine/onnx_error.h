/* ONNX Runtime's failures in our words.
 *
 * Its texts are made from the tenant's model and from the library's own source lines: source paths, C++ signatures and
 * addresses go, names out of the model stay. Pure but for onnx_check. */
#ifndef BULKHEAD_ENGINE_ONNX_ERROR_H
#define BULKHEAD_ENGINE_ONNX_ERROR_H

#include "base/error.h"
#include "base/str.h"

#include <onnxruntime_c_api.h>

/* Makes any text fit for a person: printable ASCII, single spaces, no source location, no path of the server's file
 * system, no address; cut at capacity - 1 bytes and NUL-terminated. */
void onnx_text_clean(struct str message, char *text, size_t capacity);

/* 0 when status is NULL; else releases it and sets err to `code` with "what: cleaned text". A failed allocation becomes
 * -ERROR_NO_MEMORY. */
must_check int onnx_check(const OrtApi *api, OrtStatus *status, int code, const char *what, struct error *err);

#endif
