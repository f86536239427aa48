#include "tensor/oip_internal.h"

#include <stdio.h>

/* `FP32 [-1,64]` */
static const char *spec_text(enum tensor_dtype dtype, const struct tensor_shape *shape, char *text, size_t capacity)
{
    char dims[96];
    (void)snprintf(text, capacity, "%s %s", tensor_dtype_name(dtype), tensor_shape_text(shape, dims, sizeof dims));
    return text;
}

/* `"a", "b"` of as many specs as fit, then "…". */
static const char *names_text(const struct tensor_spec *specs, uint32_t n, char *text, size_t capacity)
{
    static const char more[] = ", …";
    size_t size = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < n; i++) {
        struct str name = oip_name_shown(str_from(specs[i].name));
        if (size + name.size + sizeof ", \"\"" + sizeof more > capacity) {
            memcpy(text + size, more, sizeof more);
            break;
        }
        int length = snprintf(text + size, capacity - size, "%s\"" STR_FORMAT "\"", i > 0 ? ", " : "", STR_ARG(name));
        if (length > 0)
            size += (size_t)length;
    }
    return text;
}

static int refuse_unknown(const char *kind, struct str name, const struct tensor_spec *specs, uint32_t n,
                          struct error *err)
{
    char names[256];
    name = oip_name_shown(name);
    return error_set(err, ERROR_INVALID_TENSOR, "The model has no %s \"" STR_FORMAT "\"; it has %s.", kind,
                     STR_ARG(name), n > 0 ? names_text(specs, n, names, sizeof names) : "none");
}

/* Index of the spec of that name; most requests are already in the model's order, so `guess` is tried first. */
static int spec_index(const struct tensor_spec *specs, uint32_t n, struct str name, uint32_t guess)
{
    return guess < n && tensor_spec_find(&specs[guess], 1, name) == 0 ? (int)guess : tensor_spec_find(specs, n, name);
}

static int check_input(const struct tensor_view *input, const struct tensor_spec *spec, struct error *err)
{
    if (input->dtype == spec->dtype && tensor_shape_matches(&input->shape, &spec->shape))
        return 0;
    char expected[128], got[128];
    struct str name = oip_name_shown(input->name);
    (void)spec_text(spec->dtype, &spec->shape, expected, sizeof expected); /* the text is in `expected` */
    return error_set(err, ERROR_INVALID_TENSOR, "Input \"" STR_FORMAT "\" is %s, but the model expects %s%s.",
                     STR_ARG(name), spec_text(input->dtype, &input->shape, got, sizeof got), expected,
                     strchr(expected, '-') ? " (-1: any size)" : "");
}

/* place[n]: index in the model's order of the request's n-th input. */
static int check_inputs(const struct oip_request *request, const struct tensor_signature *signature, uint8_t *place,
                        struct error *err)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < request->n_inputs; i++) {
        const struct tensor_view *input = &request->inputs[i];
        int index = spec_index(signature->inputs, signature->n_inputs, input->name, i);
        if (index < 0)
            return refuse_unknown("input", input->name, signature->inputs, signature->n_inputs, err);
        struct str name = oip_name_shown(input->name);
        if (seen >> index & 1)
            return error_set(err, ERROR_INVALID_TENSOR, "Input \"" STR_FORMAT "\" is there twice.", STR_ARG(name));
        seen |= UINT64_C(1) << index;
        int status = check_input(input, &signature->inputs[index], err);
        if (status < 0)
            return status;
        place[i] = (uint8_t)index;
    }
    for (uint32_t i = 0; i < signature->n_inputs; i++) {
        if (seen >> i & 1)
            continue;
        const struct tensor_spec *spec = &signature->inputs[i];
        struct str name = oip_name_shown(str_from(spec->name));
        char expected[128];
        return error_set(err, ERROR_INVALID_TENSOR, "Input \"" STR_FORMAT "\" is missing; the model expects %s.",
                         STR_ARG(name), spec_text(spec->dtype, &spec->shape, expected, sizeof expected));
    }
    return 0;
}

static int check_outputs(const struct oip_request *request, const struct tensor_signature *signature, struct error *err)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < request->n_outputs; i++) {
        struct str name = request->outputs[i].name;
        int index = spec_index(signature->outputs, signature->n_outputs, name, i);
        if (index < 0)
            return refuse_unknown("output", name, signature->outputs, signature->n_outputs, err);
        name = oip_name_shown(name);
        if (seen >> index & 1)
            return error_set(err, ERROR_INVALID_TENSOR, "Output \"" STR_FORMAT "\" is asked for twice.", STR_ARG(name));
        seen |= UINT64_C(1) << index;
    }
    return 0;
}

static int count_rows(const struct oip_request *request, const struct tensor_signature *signature, uint32_t *ret_rows,
                      struct error *err)
{
    int64_t rows = 1;
    for (uint32_t i = 0; signature->batchable && i < request->n_inputs; i++) {
        const struct tensor_view *input = &request->inputs[i];
        struct str name = oip_name_shown(input->name);
        int64_t dim = input->shape.rank > 0 ? input->shape.dims[0] : 0;
        if (dim < 0 || dim > UINT32_MAX)
            return error_set(err, ERROR_INVALID_TENSOR,
                             "Dimension 0 of input \"" STR_FORMAT "\" is the batch and must be from 0 to %u, not %lld.",
                             STR_ARG(name), UINT32_MAX, (long long)dim);
        if (i > 0 && dim != rows)
            return error_set(
                err, ERROR_INVALID_TENSOR,
                "Dimension 0 is the batch and must be equal in all inputs; it is %lld in the first one and "
                "%lld in \"" STR_FORMAT "\".",
                (long long)rows, (long long)dim, STR_ARG(name));
        rows = dim;
    }
    *ret_rows = (uint32_t)rows;
    return 0;
}

/* Puts each input where it belongs; every swap puts at least one there for good. */
static void sort_inputs(struct oip_request *request, uint8_t *place)
{
    for (uint32_t i = 0; i < request->n_inputs; i++) {
        while (place[i] != i) {
            uint8_t to = place[i];
            struct tensor_view view = request->inputs[to];
            request->inputs[to] = request->inputs[i];
            request->inputs[i] = view;
            place[i] = place[to];
            place[to] = to;
        }
    }
}

int oip_request_check(struct oip_request *request, const struct tensor_signature *signature, uint32_t *ret_rows,
                      struct error *err)
{
    uint8_t place[LIMIT_TENSORS] = {0};
    if (signature->token.sequences > 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "This is a language model: it has no tensors, so inference requests do not reach it.");
    int status = check_inputs(request, signature, place, err);
    if (status < 0)
        return status;
    status = check_outputs(request, signature, err);
    if (status < 0)
        return status;
    status = count_rows(request, signature, ret_rows, err);
    if (status < 0)
        return status;
    sort_inputs(request, place);
    return 0;
}
