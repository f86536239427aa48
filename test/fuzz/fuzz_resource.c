/* A document from `apply`: refused with a text, or decoded; then encoding and decoding again must give the same bytes.
 * Input that begins with '?' is what somebody asks `explain`. */
#include "resource/resource_internal.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(int result, const struct error *err)
{
    assert(result < 0 && err->code == result);
    assert(err->text[0] != '\0' && strlen(err->text) < sizeof err->text);
    for (const char *c = err->text; *c; c++)
        assert((unsigned char)*c >= 0x20 && *c != 0x7F); /* it may end on a terminal */
}

static void round_trip(enum resource_kind kind, const union resource_any *resource)
{
    static union resource_any again;
    struct error err = {0};
    _buf_ struct buf text;
    buf_init(&text, MIB);
    resource_encode(kind, resource, NULL, &text);
    assert(text.failed == 0);
    yyjson_doc *doc = yyjson_read(text.data, text.size, 0);
    assert(doc);
    int result = resource_decode(yyjson_doc_get_root(doc), kind, &again, &err);
    assert(result == 0);
    assert(memcmp(resource, &again, resource_kinds[kind].bytes) == 0);
    yyjson_doc_free(doc);
}

static void explain(struct str what)
{
    struct error err = {0};
    _buf_ struct buf text;
    buf_init(&text, MIB);
    int result = resource_explain(what, &text, &err);
    assert(result == 0 ? text.size > 0 : (result == -ERROR_NOT_FOUND && text.size == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == '?') {
        explain((struct str){(const char *)data + 1, size - 1});
        return 0;
    }
    yyjson_doc *doc = yyjson_read((const char *)data, size, 0);
    if (!doc)
        return -1;
    yyjson_val *root = yyjson_doc_get_root(doc);
    enum resource_kind kind = RESOURCE_NONE;
    struct error err = {0};
    static union resource_any resource;
    int result = resource_peek(root, &kind, &err);
    if (result == 0)
        result = resource_decode(root, kind, &resource, &err);
    if (result < 0)
        check_text(result, &err);
    else
        round_trip(kind, &resource);
    yyjson_doc_free(doc);
    return 0;
}
