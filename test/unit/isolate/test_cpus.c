/* Sets of processors and their text. */
#include "support.h"

#include "isolate/isolate_cpus.h"

static struct isolate_cpus set_of(const char *text)
{
    struct isolate_cpus set;
    assert_int_equal(isolate_cpus_parse(str_from(text), &set), 0);
    return set;
}

static void test_text(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
        uint32_t n;
    } rows[] = {{"", "", 0},         {"0\n", "0", 1},      {"0-3,7\n", "0-3,7", 5},
                {"5,4,3", "3-5", 3}, {"1023", "1023", 1},  {"0-1023", "0-1023", 1024},
                {"2,2,2", "2", 1},   {"63,64", "63-64", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct isolate_cpus set = set_of(rows[i].in);
        char text[ISOLATE_CPUS_TEXT];
        isolate_cpus_text(&set, text, sizeof text);
        assert_string_equal(text, rows[i].out);
        assert_int_equal(isolate_cpus_count(&set), rows[i].n);
    }
    static const char *const wrong[] = {
        "-", "1-", "3-1", "1024", "1,", ",1", "a", "1 2", "1--2", "0x1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct isolate_cpus set = set_of("7");
        if (isolate_cpus_parse(str_from(wrong[i]), &set) != -ERROR_INVALID_ARGUMENT)
            fail_msg("\"%s\" was taken", wrong[i]);
        assert_true(isolate_cpus_has(&set, 7)); /* untouched */
    }
    struct isolate_cpus odd = {0}; /* the longest text there is */
    for (uint32_t cpu = 0; cpu < LIMIT_CPUS; cpu += 2)
        isolate_cpus_add(&odd, cpu);
    char text[ISOLATE_CPUS_TEXT], cut[4];
    isolate_cpus_text(&odd, text, sizeof text);
    struct isolate_cpus again = set_of(text);
    assert_memory_equal(&again, &odd, sizeof odd);
    isolate_cpus_text(&odd, cut, sizeof cut);
    assert_string_equal(cut, "0,2");
}

static void test_sums(void **state)
{
    (void)state;
    struct isolate_cpus a = set_of("0-3"), b = set_of("2-5"), c = a;
    isolate_cpus_unite(&c, &b);
    assert_true(isolate_cpus_within(&a, &c) && isolate_cpus_within(&b, &c) && !isolate_cpus_within(&a, &b));
    assert_int_equal(isolate_cpus_count(&c), 6);
    isolate_cpus_subtract(&c, &a);
    isolate_cpus_keep(&b, &c);
    assert_int_equal(isolate_cpus_count(&b), 2);
    assert_true(isolate_cpus_has(&b, 4) && isolate_cpus_has(&b, 5));
}

static void test_the_host_tells(void **state)
{
    (void)state;
    struct isolate_cpus own, core;
    assert_int_equal(isolate_cpus_of(0, &own), 0);
    assert_true(isolate_cpus_count(&own) > 0);
    assert_true(isolate_cpus_bind(getpid(), &own));
    isolate_cpus_core(LIMIT_CPUS - 1, &core); /* there is none of that number: itself */
    assert_true(isolate_cpus_has(&core, LIMIT_CPUS - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_the_host_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
