/* Documents to decode, and decoding them in one call. */
#ifndef TEST_UNIT_RESOURCE_FIXTURE_H
#define TEST_UNIT_RESOURCE_FIXTURE_H

#include "resource/resource_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define API "\"apiVersion\":\"bulkhead.dev/v1alpha1\","
#define MODEL(spec) \
    "{" API "\"kind\":\"Model\",\"metadata\":{\"name\":\"digits\",\"tenant\":\"acme\"},\"spec\":{" spec "}}"
#define MODEL_WITH(spec) MODEL("\"engine\":\"onnx\",\"source\":\"digits.onnx\"," spec)
#define TENANT(spec)     "{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"acme\"},\"spec\":{" spec "}}"
#define GRANT(spec) \
    "{" API "\"kind\":\"Grant\",\"metadata\":{\"name\":\"lend\",\"tenant\":\"acme\"},\"spec\":{" spec "}}"
#define ADAPTER(spec) \
    "{" API "\"kind\":\"Adapter\",\"metadata\":{\"name\":\"voice\",\"tenant\":\"acme\"},\"spec\":{" spec "}}"
#define SERVER(spec) "{" API "\"kind\":\"Server\",\"metadata\":{\"name\":\"here\"},\"spec\":{" spec "}}"

/* Decodes as the kind the document names. */
static inline int decode_text(const char *text, union resource_any *resource, struct error *err)
{
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    assert_non_null(doc);
    enum resource_kind kind = RESOURCE_NONE;
    int result = resource_peek(yyjson_doc_get_root(doc), &kind, err);
    if (result == 0)
        result = resource_decode(yyjson_doc_get_root(doc), kind, resource, err);
    yyjson_doc_free(doc);
    return result;
}

#endif
