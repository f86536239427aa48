#include "base/bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The bytes of a folder of these files, each of its name as content; freed by the caller. */
static struct str pack(const char *const *names, size_t n)
{
    struct bundle_file files[8] = {0};
    struct buf head;
    uint64_t bytes = 0;
    buf_init(&head, MIB);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(str_copy(str_from(names[i]), files[i].name, sizeof files[i].name), 0);
        files[i].size = strlen(names[i]);
    }
    assert_int_equal(bundle_layout(files, n, &head, &bytes), 0);
    char *data = calloc(1, bytes);
    memcpy(data, head.data, head.size);
    for (size_t i = 0; i < n; i++)
        memcpy(data + files[i].offset, files[i].name, files[i].size);
    buf_done(&head);
    return (struct str){data, bytes};
}

static void test_there_and_back(void **state)
{
    (void)state;
    static const char *const names[] = {"weights.bin", "model.onnx", "deep/er/x", "a"};
    static const char *const other[] = {"a", "deep/er/x", "model.onnx", "weights.bin"};
    struct str packed = pack(names, 4), again = pack(other, 4), name, content;
    struct bundle b;
    assert_int_equal(packed.size, again.size); /* whatever order they came in */
    assert_memory_equal(packed.data, again.data, packed.size);
    assert_true(bundle_is(packed));
    assert_int_equal(bundle_open(packed, &b, NULL), 0);
    assert_int_equal(b.n_files, 4);
    for (uint32_t i = 0; i < 4; i++) {
        bundle_at(&b, i, &name, &content);
        assert_true(str_equal(name, str_from(other[i])) && str_equal(content, name));
        assert_int_equal((content.data - packed.data) % 4096, 0);
    }
    assert_true(bundle_find(&b, STR("deep/er/x"), &content) && str_equal(content, STR("deep/er/x")));
    assert_false(bundle_find(&b, STR("deep"), &content));
    free((char *)(uintptr_t)packed.data);
    free((char *)(uintptr_t)again.data);
}

/* The head or an offset changed, any shorter length, a name without end. */
static void test_damage_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"b", "c/d"};
    struct str packed = pack(names, 2);
    char *bytes = (char *)(uintptr_t)packed.data;
    struct bundle b;
    struct error err;
    for (size_t size = 0; size < packed.size; size++) {
        char *copy = malloc(size ? size : 1); /* so that reading past it shows */
        memcpy(copy, bytes, size);
        assert_int_equal(bundle_open((struct str){copy, size}, &b, &err), -ERROR_REFUSED);
        free(copy);
    }
    for (size_t i = 0; i < 24 + 8; i++) /* the head, and an offset */
        for (unsigned value = 1; value < 256; value++) {
            bytes[i] = (char)(bytes[i] ^ (char)value);
            assert_int_equal(bundle_open(packed, &b, &err), -ERROR_REFUSED);
            bytes[i] = (char)(bytes[i] ^ (char)value);
        }
    memset(bytes + 24 + 16, 'x', 256); /* a name without its end */
    assert_int_equal(bundle_open(packed, &b, &err), -ERROR_REFUSED);
    free(bytes);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a/b", ".hidden", "a..b", "...", "\xc3\xa4", "*"};
    static const char *const bad[] = {"",     ".",     "..",   "/a",   "a/",   "a//b",  "../a",
                                      "a/..", "a/./b", "a\nb", "\x7f", "\xff", "a/../b"};
    char name[LIMIT_FOLDER_NAME_BYTES + 1];
    memset(name, 'n', sizeof name);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(bundle_name_valid(str_from(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(bundle_name_valid(str_from(bad[i])));
    assert_true(bundle_name_valid((struct str){name, LIMIT_FOLDER_NAME_BYTES}));
    assert_false(bundle_name_valid((struct str){name, LIMIT_FOLDER_NAME_BYTES + 1}));
}

static void test_limits(void **state)
{
    (void)state;
    struct bundle_file *files = calloc(LIMIT_FOLDER_FILES + 1, sizeof *files);
    struct buf head;
    uint64_t bytes = 0;
    buf_init(&head, MIB);
    assert_int_equal(bundle_layout(files, 0, &head, &bytes), -ERROR_LIMIT);
    assert_int_equal(bundle_layout(files, LIMIT_FOLDER_FILES + 1, &head, &bytes), -ERROR_LIMIT);
    files[0] = (struct bundle_file){.name = "a", .size = LIMIT_ARTIFACT_BYTES - 4096};
    assert_int_equal(bundle_layout(files, 1, &head, &bytes), 0);
    assert_int_equal(bytes, LIMIT_ARTIFACT_BYTES);
    files[0].size++;
    assert_int_equal(bundle_layout(files, 1, &head, &bytes), -ERROR_LIMIT);
    files[0].size = UINT64_MAX;
    assert_int_equal(bundle_layout(files, 1, &head, &bytes), -ERROR_LIMIT);
    buf_done(&head);
    free(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
