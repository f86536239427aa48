/* A request, its arena and its error, for tests of the OIP codec. The body is kept in a heap block of exactly its size,
 * so that ASan sees a read beyond it. */
#ifndef TEST_UNIT_TENSOR_OIP_FIXTURE_H
#define TEST_UNIT_TENSOR_OIP_FIXTURE_H

#include "tensor/oip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
    struct arena arena;
    struct oip_request request;
    struct error err;
    char *body;
};

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    arena_init(&f->arena, 64 * MIB);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    arena_done(&f->arena);
    free(f->body);
    free(f);
    return 0;
}

/* Decodes `json` with `binary_size` bytes behind it. */
static inline int decode_with(struct fixture *f, const char *json, const void *binary, size_t binary_size)
{
    size_t json_size = strlen(json);
    free(f->body);
    f->body = malloc(json_size + binary_size > 0 ? json_size + binary_size : 1);
    assert_non_null(f->body);
    memcpy(f->body, json, json_size);
    if (binary_size > 0)
        memcpy(f->body + json_size, binary, binary_size);
    memset(&f->err, 0, sizeof f->err);
    arena_reset(&f->arena);
    return oip_request_decode((struct str){f->body, json_size + binary_size}, json_size, &f->arena, &f->request,
                              &f->err);
}

static inline int decode(struct fixture *f, const char *json)
{
    return decode_with(f, json, NULL, 0);
}

/* One input x of that datatype, shape and data. */
static inline int decode_data(struct fixture *f, const char *dtype, const char *shape, const char *data)
{
    size_t capacity = strlen(data) + 256;
    char *json = malloc(capacity);
    assert_non_null(json);
    int length =
        snprintf(json, capacity, "{\"inputs\":[{\"name\":\"x\",\"shape\":%s,\"datatype\":\"%s\",\"data\":%s}]}", shape,
                 dtype, data);
    assert_true(length > 0 && (size_t)length < capacity);
    int status = decode(f, json);
    free(json);
    return status;
}

static inline void assert_text(const struct fixture *f, const char *part)
{
    if (!strstr(f->err.text, part))
        fail_msg("\"%s\" is not in: %s", part, f->err.text);
}

#define assert_str(got, expected)                                                      \
    do {                                                                               \
        struct str got_ = (got);                                                       \
        assert_int_equal(got_.size, strlen(expected));                                 \
        assert_memory_equal(got_.data ? got_.data : "", (expected), strlen(expected)); \
    } while (0)

#define with_fixture(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

#endif
