/* The look at a GGUF file before llama.cpp gets it. */
#include "engine/gguf_scan.h"
#include "gguf_builder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct buf tiny;

static int scan(const void *data, size_t size, struct error *err)
{
    /* A copy of its own, so that a read beyond its end is seen. */
    char *copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    memset(err, 0, sizeof *err);
    int r = gguf_scan((struct str){copy, size}, err);
    free(copy);
    assert_true(r == 0 || (r == -ERROR_REFUSED && err->code == r && err->text[0]));
    return r;
}

static void refused(const struct buf *b, const char *word)
{
    struct error err;
    assert_int_equal(scan(b->data, b->size, &err), -ERROR_REFUSED);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not say '%s'", err.text, word);
}

static void head(struct buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    buf_clear(b);
    buf_append(b, "GGUF", 4);
    gguf_u32(b, version);
    gguf_u64(b, n_tensors);
    gguf_u64(b, n_keys);
}

static void tensor(struct buf *b, uint32_t rank, uint64_t dim, uint64_t offset)
{
    gguf_text(b, "t");
    gguf_u32(b, rank);
    for (uint32_t i = 0; i < rank; i++)
        gguf_u64(b, dim);
    gguf_u32(b, 0);
    gguf_u64(b, offset);
}

static void test_accepts(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(scan(tiny.data, tiny.size, &err), 0);
}

static void test_every_cut(void **state)
{
    (void)state;
    struct error err;
    for (size_t cut = 0; cut < 16000 && cut < tiny.size; cut += cut < 400 ? 1 : 37)
        assert_int_equal(scan(tiny.data, cut, &err), -ERROR_REFUSED);
}

static void test_lies(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, MIB);
    buf_append_text(&b, "GGML");
    refused(&b, "does not begin with GGUF");
    head(&b, 4, 1, 0);
    refused(&b, "version");
    head(&b, 3, 0, 0);
    refused(&b, "no tensors");
    head(&b, 3, UINT64_MAX, 0);
    refused(&b, "too many");
    head(&b, 3, 1, UINT64_MAX);
    refused(&b, "too many");
    head(&b, 3, 1, 1);
    gguf_u64(&b, UINT64_MAX); /* a key's length */
    refused(&b, "too long");
    head(&b, 3, 1, 1);
    gguf_text(&b, "a");
    gguf_u32(&b, 13);
    refused(&b, "unknown type");
    head(&b, 3, 1, 1);
    gguf_key_array(&b, "a", 9, 1);
    refused(&b, "unknown type");
    head(&b, 3, 1, 1);
    gguf_key_array(&b, "a", 10, UINT64_MAX);
    refused(&b, "too long");
    head(&b, 3, 1, 1);
    gguf_key_array(&b, "a", 10, 1000000);
    refused(&b, "cut off");
    head(&b, 3, 1, 1);
    gguf_key_u32(&b, "general.alignment", 12);
    refused(&b, "alignment");
    head(&b, 3, 1, 1);
    gguf_key_u32(&b, "split.count", 2);
    refused(&b, "one part of several");
    head(&b, 3, 1, 0);
    tensor(&b, 5, 1, 0);
    refused(&b, "dimensions");
    head(&b, 3, 1, 0);
    tensor(&b, 2, UINT64_C(1) << 33, 0);
    refused(&b, "dimensions");
    head(&b, 3, 1, 0);
    tensor(&b, 1, 0, 0);
    refused(&b, "dimensions");
    head(&b, 3, 1, 0);
    tensor(&b, 1, 1, 7);
    refused(&b, "alignment");
    head(&b, 3, 1, 0);
    tensor(&b, 1, 1, UINT64_MAX - 31);
    refused(&b, "beyond its end");
    buf_done(&b);
}

/* Bytes of the header changed at random: refused or accepted, and never read beyond. */
static void test_mutations(void **state)
{
    (void)state;
    struct error err;
    char *copy = malloc(tiny.size);
    uint64_t random = 7;
    for (unsigned round = 0; round < 500; round++) {
        memcpy(copy, tiny.data, tiny.size);
        for (unsigned i = 0; i < 4; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            copy[(random >> 40) % 12000] = (char)(random >> 32);
        }
        (void)scan(copy, tiny.size, &err); /* scan's own checks */
    }
    free(copy);
}

static int setup(void **state)
{
    (void)state;
    buf_init(&tiny, 4 * MIB);
    tiny_build(&tiny, 1);
    return tiny.failed;
}

static int teardown(void **state)
{
    (void)state;
    buf_done(&tiny);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
