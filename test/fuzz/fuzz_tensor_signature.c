/* A worker's description of its model. What decodes must be in range and encode to the very same bytes. */
#undef NDEBUG
#include "tensor/oip.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_specs(const struct tensor_signature *s, const struct tensor_spec *specs, uint32_t n)
{
    assert(n <= LIMIT_TENSORS);
    for (uint32_t i = 0; i < n; i++) {
        struct str name = str_from(specs[i].name);
        assert(name.size > 0 && name.size <= LIMIT_TENSOR_NAME_BYTES && str_is_utf8(name));
        assert(specs[i].dtype > TENSOR_INVALID && specs[i].dtype < TENSOR_DTYPE_COUNT);
        assert(specs[i].shape.rank <= LIMIT_TENSOR_RANK);
        for (uint32_t k = 0; k < specs[i].shape.rank; k++)
            assert(specs[i].shape.dims[k] >= -1);
        assert(!s->batchable || (specs[i].shape.rank > 0 && specs[i].shape.dims[0] == -1));
        assert(tensor_spec_find(specs, n, name) == (int)i); /* no name twice */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tensor_signature s;
    static uint8_t again[TENSOR_SIGNATURE_BYTES_MAX];
    struct error err = {0};
    int status = tensor_signature_decode(data, size, &s, &err);
    if (status < 0) {
        assert(status == -ERROR_PEER && err.code == status && err.text[0]);
        return 0;
    }
    check_specs(&s, s.inputs, s.n_inputs);
    check_specs(&s, s.outputs, s.n_outputs);
    size_t again_size = 0;
    assert(tensor_signature_encode(&s, again, sizeof again, &again_size) == 0);
    assert(again_size == size && memcmp(again, data, size) == 0);
    struct buf text;
    buf_init(&text, MIB);
    oip_metadata_encode(STR("m"), NULL, 0, &s, &text);
    assert(!text.failed);
    buf_done(&text);
    return 0;
}
