/* Inference requests: decode, check, encode the tensors as an answer, decode that, compare.
 *
 * The input is a body; its first NUL ends the JSON part and is dropped, what follows is the binary part (JSON holds no
 * NUL, and so seeds stay readable). Whatever decodes must hold the decoder's promises, and what the encoder writes of
 * it must read back as the same bytes. */
#undef NDEBUG
#include "tensor/oip.h"

#include <assert.h>

enum { MEMORY_MAX = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_promises(const struct oip_request *request)
{
    assert(request->n_inputs <= LIMIT_TENSORS && request->n_outputs <= LIMIT_TENSORS);
    assert(request->id.size <= LIMIT_REQUEST_ID_BYTES && str_is_utf8(request->id));
    for (uint32_t i = 0; i < request->n_inputs; i++) {
        const struct tensor_view *view = &request->inputs[i];
        assert(view->name.size > 0 && view->name.size <= LIMIT_TENSOR_NAME_BYTES && str_is_utf8(view->name));
        assert(tensor_data_check(view->dtype, &view->shape, view->data, view->size, NULL) == 0);
        uint64_t elements;
        assert(tensor_shape_elements(&view->shape, &elements) == 0);
        assert(tensor_data_prefix(view->dtype, view->data, view->size, elements) == view->size);
    }
    for (uint32_t i = 0; i < request->n_outputs; i++)
        assert(request->outputs[i].name.size > 0 && str_is_utf8(request->outputs[i].name));
}

/* A model that takes just these inputs, in reverse order and with a dynamic first dimension. */
static void make_signature(const struct oip_request *request, struct tensor_signature *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->n_inputs = ret->n_outputs = request->n_inputs;
    ret->batchable = request->n_inputs > 0;
    for (uint32_t i = 0; i < request->n_inputs; i++) {
        const struct tensor_view *view = &request->inputs[request->n_inputs - 1 - i];
        assert(str_copy(view->name, ret->inputs[i].name, sizeof ret->inputs[i].name) == 0);
        ret->inputs[i].dtype = view->dtype;
        ret->inputs[i].shape = view->shape;
        if (view->shape.rank == 0)
            ret->batchable = false;
        else
            ret->inputs[i].shape.dims[0] = -1;
        ret->outputs[i] = ret->inputs[i];
    }
}

static void check_against_model(struct oip_request *request)
{
    static struct tensor_signature signature;
    struct error err = {0};
    uint32_t rows = 0;
    make_signature(request, &signature);
    int status = oip_request_check(request, &signature, &rows, &err);
    if (status < 0) {
        assert(err.code == status && status == -ERROR_INVALID_TENSOR);
        return;
    }
    assert(rows >= 1);
    for (uint32_t i = 0; i < request->n_inputs; i++)
        assert(str_equal(request->inputs[i].name, str_from(signature.inputs[i].name)));
    check_promises(request);
}

/* The answer's `outputs` have the form of a request's `inputs`. */
static void check_round_trip(const struct oip_request *request, bool all_binary)
{
    static struct oip_request back;
    static const char head[] = "{\"model_name\":\"m\",\"outputs\":", inputs[] = "{\"inputs\":";
    bool binary[LIMIT_TENSORS];
    struct error err = {0};
    struct buf answer;
    size_t json_size = 0;
    buf_init(&answer, MEMORY_MAX);
    for (uint32_t i = 0; i < request->n_inputs; i++)
        binary[i] = all_binary || i % 3 == 2;
    int status = oip_answer_encode(STR("m"), STR(""), (struct str){0}, request->inputs, binary, request->n_inputs,
                                   &answer, &json_size, &err);
    if (status < 0) {
        assert(!all_binary && (status == -ERROR_UNSUPPORTED || status == -ERROR_LIMIT));
        buf_done(&answer);
        return;
    }
    if (json_size == 0)
        json_size = answer.size;
    assert(memcmp(answer.data, head, sizeof head - 1) == 0);
    size_t skip = sizeof head - sizeof inputs;
    memcpy(answer.data + skip, inputs, sizeof inputs - 1);
    struct arena arena;
    arena_init(&arena, (size_t)MEMORY_MAX * 16);
    status =
        oip_request_decode((struct str){answer.data + skip, answer.size - skip}, json_size - skip, &arena, &back, &err);
    assert(status == 0 && back.n_inputs == request->n_inputs);
    for (uint32_t i = 0; i < back.n_inputs; i++) {
        const struct tensor_view *a = &request->inputs[i], *b = &back.inputs[i];
        assert(str_equal(a->name, b->name) && a->dtype == b->dtype && tensor_shape_equal(&a->shape, &b->shape));
        assert(a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0));
    }
    arena_done(&arena);
    buf_done(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct oip_request request;
    const uint8_t *nul = size > 0 ? memchr(data, '\0', size) : NULL;
    size_t json_size = nul ? (size_t)(nul - data) : size;
    size_t binary_size = nul ? size - json_size - 1 : 0;
    char *body = malloc(json_size + binary_size > 0 ? json_size + binary_size : 1); /* exact: ASan sees one byte over */
    assert(body);
    if (json_size > 0)
        memcpy(body, data, json_size);
    if (binary_size > 0)
        memcpy(body + json_size, nul + 1, binary_size);

    struct arena arena;
    struct error err = {0};
    arena_init(&arena, MEMORY_MAX);
    int status = oip_request_decode((struct str){body, json_size + binary_size}, json_size, &arena, &request, &err);
    if (status < 0) {
        assert(err.code == status && err.text[0]);
    } else {
        check_promises(&request);
        check_round_trip(&request, false);
        check_round_trip(&request, true);
        check_against_model(&request);
    }
    arena_done(&arena);
    free(body);
    return 0;
}
