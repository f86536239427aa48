/*
 * Binary requests: the value of Inference-Header-Content-Length, and a body of JSON and raw tail, or the tensor alone.
 *
 * Input: a byte that picks a model's signature, the header's value up to a line feed ("-": no such header), the body.
 * What the model takes must hold the decoder's promises; then the inputs go back as outputs (each model has an output
 * like every input), binary or JSON as the request wished, and the answer must be framed as its header says: the JSON
 * part names each binary output's size, and the tail is exactly those bytes.
 */
#undef NDEBUG
#include "tensor/oip.h"

#include <assert.h>
#include <yyjson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_MAX = 16 << 20 };

#define SPEC(name, dtype, ...)   \
    {                            \
        name, dtype, __VA_ARGS__ \
    }

static const struct {
    uint32_t n;
    bool batchable;
    struct tensor_spec specs[3];
} models[] = {
    {1, true, {SPEC("x", TENSOR_FP32, {2, {-1, 4}})}},
    {1, true, {SPEC("x", TENSOR_BYTES, {2, {-1, 1}})}},
    {1, true, {SPEC("x", TENSOR_INT64, {3, {-1, -1, 2}})}},
    {1, true, {SPEC("x", TENSOR_FP16, {3, {-1, -1, -1}})}},
    {1, false, {SPEC("x", TENSOR_UINT8, {1, {-1}})}},
    {1, false, {SPEC("x", TENSOR_BOOL, {0, {0}})}},
    {1, false, {SPEC("x", TENSOR_BYTES, {1, {-1}})}},
    {1, false, {SPEC("x", TENSOR_FP64, {2, {-1, 0}})}},
    {1, false, {SPEC("x", TENSOR_BF16, {3, {INT64_MAX, INT64_MAX, -1}})}},
    {2, true, {SPEC("x", TENSOR_FP32, {2, {-1, 2}}), SPEC("y", TENSOR_BYTES, {1, {-1}})}},
    {3,
     false,
     {SPEC("x", TENSOR_INT8, {1, {-1}}), SPEC("y", TENSOR_BOOL, {1, {-1}}), SPEC("z", TENSOR_BYTES, {1, {-1}})}},
};

static struct tensor_signature signature;
static struct oip_request request;

static void signature_make(uint8_t number)
{
    size_t which = number % (sizeof models / sizeof models[0]);
    signature.n_inputs = signature.n_outputs = models[which].n;
    signature.batchable = models[which].batchable;
    for (uint32_t i = 0; i < models[which].n; i++)
        signature.inputs[i] = signature.outputs[i] = models[which].specs[i];
}

/* The outputs as they were asked for. */
static uint32_t outputs_make(struct tensor_view *views, bool *binary)
{
    uint32_t n = request.n_outputs > 0 ? request.n_outputs : signature.n_outputs;
    for (uint32_t i = 0; i < n; i++) {
        int index = (int)i;
        if (request.n_outputs > 0)
            index = tensor_spec_find(signature.outputs, signature.n_outputs, request.outputs[i].name);
        assert(index >= 0);
        views[i] = request.inputs[index];
        binary[i] = request.n_outputs > 0 ? request.outputs[i].binary : request.binary_output_default;
    }
    return n;
}

static void answer_check(struct str answer, size_t json_size, const struct tensor_view *views, const bool *binary,
                         uint32_t n)
{
    yyjson_doc *doc = yyjson_read(answer.data, json_size > 0 ? json_size : answer.size, 0);
    assert(doc);
    yyjson_val *outputs = yyjson_obj_get(yyjson_doc_get_root(doc), "outputs");
    assert(yyjson_arr_size(outputs) == n);
    struct str tail = json_size > 0 ? str_skip(answer, json_size) : (struct str){"", 0};
    for (uint32_t i = 0; i < n; i++) {
        yyjson_val *output = yyjson_arr_get(outputs, i);
        yyjson_val *bytes = yyjson_obj_get(yyjson_obj_get(output, "parameters"), "binary_data_size");
        assert(binary[i] == (bytes != NULL) && binary[i] == (yyjson_obj_get(output, "data") == NULL));
        if (!binary[i])
            continue;
        assert(yyjson_get_uint(bytes) == views[i].size && tail.size >= views[i].size);
        assert(views[i].size == 0 || memcmp(tail.data, views[i].data, views[i].size) == 0);
        tail = str_skip(tail, views[i].size);
    }
    assert(tail.size == 0);
    yyjson_doc_free(doc);
}

static void answer(void)
{
    struct tensor_view views[LIMIT_TENSORS];
    bool binary[LIMIT_TENSORS], any = false;
    uint32_t n = outputs_make(views, binary);
    for (uint32_t i = 0; i < n; i++)
        any = any || binary[i];
    struct buf body;
    struct error err = {0};
    size_t json_size = 0;
    buf_init(&body, MEMORY_MAX);
    int r = oip_answer_encode(STR("m"), STR("1"), request.id, views, binary, n, &body, &json_size, &err);
    if (r < 0) /* a NaN, or bytes that are not text: only JSON has no form for them */
        assert((r == -ERROR_UNSUPPORTED || r == -ERROR_LIMIT) && err.code == r && err.text[0]);
    else {
        assert(any == (json_size > 0));
        answer_check((struct str){body.data, body.size}, json_size, views, binary, n);
    }
    buf_done(&body);
}

static int decode(struct str header, struct str body, struct arena *arena, struct error *err)
{
    size_t json_size = 0;
    int r = oip_request_json_size(header, body.size, &json_size, err);
    if (r < 0)
        return r;
    assert(json_size <= body.size && (header.data || json_size == body.size));
    if (header.data && json_size == 0)
        return oip_request_raw(body, &signature, arena, &request, err);
    return oip_request_decode(body, json_size, arena, &request, err);
}

static void promises_check(uint32_t rows)
{
    assert(request.n_inputs == signature.n_inputs);
    for (uint32_t i = 0; i < request.n_inputs; i++) {
        const struct tensor_view *view = &request.inputs[i];
        assert(str_equal(view->name, str_from(signature.inputs[i].name)) && view->dtype == signature.inputs[i].dtype);
        assert(tensor_data_check(view->dtype, &view->shape, view->data, view->size, NULL) == 0);
        assert(!signature.batchable || view->shape.dims[0] == rows);
        for (uint32_t d = 0; d < view->shape.rank; d++)
            assert(signature.inputs[i].shape.dims[d] == -1 || view->shape.dims[d] == signature.inputs[i].shape.dims[d]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = size > 0 ? memchr(data + 1, '\n', size - 1) : NULL;
    if (!line)
        return -1;
    signature_make(data[0]);
    struct str header = {(const char *)data + 1, (size_t)(line - data) - 1};
    if (str_equal(header, STR("-")))
        header = (struct str){0};
    size_t body_size = size - (size_t)(line - data) - 1;
    char *body = malloc(body_size > 0 ? body_size : 1); /* exact: ASan sees one byte over */
    assert(body);
    memcpy(body, line + 1, body_size);

    struct arena arena;
    struct error err = {0};
    arena_init(&arena, MEMORY_MAX);
    int r = decode(header, (struct str){body, body_size}, &arena, &err);
    uint32_t rows = 0;
    if (r == 0)
        r = oip_request_check(&request, &signature, &rows, &err);
    if (r < 0) {
        assert(err.code == r && err.text[0]);
    } else {
        promises_check(rows);
        answer();
    }
    arena_done(&arena);
    free(body);
    return 0;
}
