/* A model and a LoRA adapter for it, both as a tenant may send them: four bytes with the model's size, the model, the
 * adapter. */
#undef NDEBUG
#include "engine/gguf_scan.h"
#include "engine/lora_scan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    uint32_t n = 0;
    if (size < sizeof n)
        return 0;
    memcpy(&n, data, sizeof n);
    size -= sizeof n;
    n = n < size ? n : (uint32_t)size;
    char *base = malloc(n > 0 ? n : 1); /* of its own: so reading beyond its end is seen */
    assert(base);
    memcpy(base, data + sizeof n, n);
    struct str model = {base, n}, adapter = {(const char *)data + sizeof n + n, size - n};
    if (gguf_scan(model, &err) == 0) {
        err = (struct error){0};
        int status = lora_scan(adapter, model, &err);
        assert(status == 0 || (status == -ERROR_REFUSED && err.code == status && err.text[0]));
    }
    free(base);
    return 0;
}
