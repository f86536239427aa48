/* A GGUF file as a tenant may send it: refused with a text, or accepted, within its bytes. */
#undef NDEBUG
#include "engine/gguf_scan.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    int status = gguf_scan((struct str){(const char *)data, size}, &err);
    assert(status == 0 || (status == -ERROR_REFUSED && err.code == status && err.text[0]));
    return 0;
}
