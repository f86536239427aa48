/* A packed folder: any bytes are refused with a text, or every file lies inside of them under a name of its own. */
#include "base/bundle.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str input = {(const char *)data, size};
    struct bundle bundle;
    struct error err = {0};
    if (bundle_open(input, &bundle, &err) < 0) {
        if (err.code != -ERROR_REFUSED || err.text[0] == '\0')
            abort();
        return 0;
    }
    volatile char last = 0;
    for (uint32_t i = 0; i < bundle.n_files; i++) {
        struct str name, content, found;
        bundle_at(&bundle, i, &name, &content);
        if (!bundle_name_valid(name) || name.data[name.size] != '\0' || !bundle_find(&bundle, name, &found) ||
            found.data != content.data || found.size != content.size)
            abort();
        if (content.size > 0)
            last = content.data[content.size - 1]; /* the sanitizer looks */
    }
    (void)last;
    return 0;
}
