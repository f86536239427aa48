/* Codec of Open Inference Protocol v2 inference requests and answers, JSON and binary tensor data extension.
 *
 * Gateway, on the loop. Decodes into the request's arena; a view may point into the body itself. Everything a client
 * sends is hostile: every count, product and length is checked, depth and sizes are bounded, and a failure's text names
 * the tensor and what was expected. Parses JSON with yyjson (arena-backed allocator), big integers checked, numbers
 * that do not fit the datatype refused, never rounded silently (an integer datatype takes only integral JSON numbers;
 * FP16, BF16, FP32 and FP64 round to nearest, ties to even, and refuse a number that would become infinite; NaN and
 * Infinity are not JSON). FP16 and BF16 are JSON numbers here like the others, in both directions; the protocol leaves
 * them without a JSON form and Triton refuses them, so no client relies on anything else.
 *
 * Memory: JSON beyond 600 bytes is parsed into heap memory that is released before the decoder returns: its text once
 * more and 16 bytes for each value (4 times the text for usual arrays, 9 times for arrays of one-digit numbers). That
 * and what the arena holds stay below the arena's maximum together, else -ERROR_NO_MEMORY. */
#ifndef BULKHEAD_TENSOR_OIP_H
#define BULKHEAD_TENSOR_OIP_H

#include "base/arena.h"
#include "base/buf.h"
#include "tensor/tensor.h"

struct oip_output_wish {
    struct str name;
    bool binary; /* parameters.binary_data, or the request's binary_data_output */
};

struct oip_request {
    struct str id; /* echoed; data NULL when there is none; ≤ LIMIT_REQUEST_ID_BYTES */
    uint32_t n_inputs;
    struct tensor_view inputs[LIMIT_TENSORS]; /* in the model's order once oip_request_check passed */
    uint32_t n_outputs;                       /* 0 = all, in the model's order */
    struct oip_output_wish outputs[LIMIT_TENSORS];
    bool binary_output_default; /* parameters.binary_data_output */
    uint64_t timeout_us;        /* parameters.timeout, microseconds as in Triton; 0 = none */
    uint64_t priority;          /* parameters.priority: 0 = the default, 1 = the highest, as in Triton */
};

/* Decodes a body. `json_size` is the value of Inference-Header-Content-Length, or body.size when the header is absent
 * (then there is no binary part). The binary parts follow the JSON in the order of the inputs that declare
 * binary_data_size and must fill the rest of the body exactly. Nested and flat `data` are both taken; nested must match
 * the shape exactly. Unknown members are refused by name, unknown parameters ignored. Does not know the model.
 * ret_request: only the used part of its arrays is written. -ERROR_INVALID_JSON with line/column/byte position,
 * -ERROR_INVALID_REQUEST for unknown, repeated or mistyped members, -ERROR_INVALID_TENSOR, -ERROR_UNSUPPORTED,
 * -ERROR_NO_MEMORY. */
must_check int oip_request_decode(struct str body, size_t json_size, struct arena *arena,
                                  struct oip_request *ret_request, struct error *err);

/* Bytes of a body's JSON part: what the header Inference-Header-Content-Length says (data NULL: there is none, and all
 * of the body is JSON). 0 with a header means a raw request. -ERROR_INVALID_REQUEST: not a number, or more than the
 * body.
 */
must_check int oip_request_json_size(struct str header, size_t body_size, size_t *ret_json_size, struct error *err);

/* A raw request (Inference-Header-Content-Length: 0): the body is the data of the model's only input, without a header.
 * A batchable model gets a batch of one; of the other dims at most one may be open, and the size tells it. BYTES: the
 * body is one element, without a length in front, and every dim is 1. All outputs are asked for in binary form. The
 * name borrows from `signature`, the data from `body` (BYTES: from the arena). oip_request_check must follow.
 * -ERROR_INVALID_REQUEST: the model cannot be asked so; -ERROR_INVALID_TENSOR: the size does not fit. */
must_check int oip_request_raw(struct str body, const struct tensor_signature *signature, struct arena *arena,
                               struct oip_request *ret_request, struct error *err);

/* Checks a decoded request against the model: every input there exactly once with its dtype and a shape that fits (the
 * text says what was expected), sorted into the model's order; wished outputs exist, none twice; for a batchable model
 * dim 0 of all inputs equal; it may be 0, as any dim that the model leaves open. ret_rows: that dim 0, or 1 when the
 * model is not batchable. */
must_check int oip_request_check(struct oip_request *request, const struct tensor_signature *signature,
                                 uint32_t *ret_rows, struct error *err);

/* Appends the answer body: JSON, and behind it the binary parts of outputs that asked for it. outputs[n] are in the
 * order to be written, binary[n] tells which go binary. ret_json_size: bytes of the JSON part; 0 when nothing is binary
 * (then no Inference-Header-Content-Length header is sent). Floating-point numbers print so that they read back bit for
 * bit; non-finite numbers cannot be written in JSON: -ERROR_UNSUPPORTED whose text suggests binary_data. BYTES that are
 * not UTF-8: the same. `data` is flat. Views that go as JSON are checked once more (-ERROR_INVALID_TENSOR). On failure
 * body's size is as before; when it did not fit, `body` stays failed. */
must_check int oip_answer_encode(struct str model, struct str version, struct str id, const struct tensor_view *outputs,
                                 const bool *binary, uint32_t n_outputs, struct buf *body, size_t *ret_json_size,
                                 struct error *err);

/* {"name":…,"versions":[…],"platform":…,"inputs":[…],"outputs":[…]} */
void oip_metadata_encode(struct str model, const struct str *versions, uint32_t n_versions,
                         const struct tensor_signature *signature, struct buf *body);

#endif
