/* Too little memory, at every maximum and at every allocation: refused as such, nothing leaked (ASan build). */

#include "oip_fixture.h"

#include <errno.h>

static size_t allocations_left = SIZE_MAX;

static bool allocation_fails(void)
{
    if (allocations_left == 0)
        return true;
    if (allocations_left != SIZE_MAX)
        allocations_left--;
    return false;
}

static void *failing_malloc(size_t size)
{
    return allocation_fails() ? NULL : malloc(size);
}

static void *failing_realloc(void *memory, size_t size)
{
    return allocation_fails() ? NULL : realloc(memory, size);
}

#define malloc  failing_malloc
#define realloc failing_realloc
#include "base/arena.c"
#include "base/buf.c"
#include "tensor/oip_json.c"
#undef malloc
#undef realloc

/* Strings grow the parser's values beyond its first guess. */
static char *large_request(void)
{
    enum { N = 3000 };
    size_t capacity = 256 + N * 10, size;
    char *json = malloc(capacity);
    assert_non_null(json);
    size = (size_t)snprintf(
        json, capacity, "{\"id\":\"id\",\"inputs\":[{\"name\":\"x\",\"shape\":[%d],\"datatype\":\"UINT8\",\"data\":[",
        N);
    for (int i = 0; i < N; i++)
        size += (size_t)snprintf(json + size, capacity - size, "%s%d", i ? "," : "", i % 10);
    size += (size_t)snprintf(json + size, capacity - size,
                             "]},{\"name\":\"s\",\"shape\":[1],\"datatype\":\"BYTES\","
                             "\"data\":[\"text\"]}],\"outputs\":[{\"name\":\"y\"}]}");
    assert_true(size < capacity);
    return json;
}

static void try_maxima(const char *json, size_t first, size_t step)
{
    static struct oip_request request;
    struct str body = str_from(json);
    bool refused = false;
    int status = -1;
    for (size_t max = first; status < 0; max += step) {
        struct arena arena;
        struct error err = {0};
        arena_init(&arena, max);
        status = oip_request_decode(body, body.size, &arena, &request, &err);
        if (status < 0) {
            assert_int_equal(status, -ERROR_NO_MEMORY);
            assert_int_equal(err.code, -ERROR_NO_MEMORY);
            refused = true;
        }
        assert_true(arena.bytes <= max);
        arena_done(&arena);
        assert_true(max < 16 * MIB);
    }
    assert_true(refused);
}

static void test_maxima(void **state)
{
    (void)state;
    char *json = large_request();
    try_maxima(json, 0, 1024);
    free(json);
    try_maxima("{\"inputs\":[],\"outputs\":[{\"name\":\"y\"}]}", 0, 512);
}

static void try_allocations(const char *json)
{
    static struct oip_request request;
    struct str body = str_from(json);
    int status = -1;
    size_t n = 0;
    for (; status < 0; n++) {
        struct arena arena;
        struct error err = {0};
        arena_init(&arena, 16 * MIB);
        allocations_left = n;
        status = oip_request_decode(body, body.size, &arena, &request, &err);
        allocations_left = SIZE_MAX;
        if (status < 0)
            assert_int_equal(status, -ERROR_NO_MEMORY);
        arena_done(&arena);
        assert_true(n < 100);
    }
    assert_true(n > 1);
}

static void test_allocations(void **state)
{
    (void)state;
    char *json = large_request();
    try_allocations(json);
    free(json);
    try_allocations("{\"inputs\":[],\"outputs\":[{\"name\":\"y\"}]}");
}

static void test_answer(void **state)
{
    (void)state;
    static float values[2000];
    struct tensor_view y = {STR("y"), TENSOR_FP32, {1, {2000}}, values, sizeof values};
    int status = -1;
    for (size_t n = 0; status < 0; n++) {
        struct buf body;
        struct error err = {0};
        size_t json_size = 0;
        buf_init(&body, MIB);
        allocations_left = n;
        status = oip_answer_encode(STR("m"), STR("1"), STR("i"), &y, &(bool){false}, 1, &body, &json_size, &err);
        allocations_left = SIZE_MAX;
        if (status < 0) {
            assert_int_equal(status, -ERROR_NO_MEMORY);
            assert_int_equal(body.size, 0);
        }
        buf_done(&body);
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maxima),
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_answer),
    };
    return cmocka_run_group_tests_name("oip_memory", tests, NULL, NULL);
}
