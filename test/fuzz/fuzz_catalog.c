/* A snapshot from a hostile control: refused, or every reader stays inside it. The input is the whole snapshot; what
 * any fuzzer would find at once (magic, version, size) is put right, so that the checks behind it are reached. */
#include "../unit/catalog/catalog_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MIB)
        return -1;
    char *copy = malloc(size ? size : 1); /* of exactly its size: ASan sees the byte beyond */
    if (!copy)
        return -1;
    memcpy(copy, data, size);
    if (size >= sizeof(struct catalog_head)) {
        struct catalog_head *head = (void *)copy;
        memcpy(head->magic, CATALOG_MAGIC, sizeof head->magic);
        head->version = CATALOG_VERSION;
        head->bytes = size;
    }
    struct catalog c;
    struct error err = {0};
    int result = catalog_view(&c, copy, size, &err);
    if (result == 0)
        (void)fixture_read_everything(&c);
    else
        assert(result == -ERROR_PEER && err.text[0] != '\0');
    free(copy);
    return 0;
}
