/* The text of /metrics from a page that another process wrote: nothing in it may break the format or the reader. */
#include "control/control_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

static struct bus_metrics page;
static struct bus_stats stats;

static char *text_of(const struct bus_metrics *m)
{
    struct buf text;
    buf_init(&text, 8 * MIB);
    control_metrics_write(m, &stats, &text);
    assert_int_equal(text.failed, 0);
    buf_append_char(&text, '\0');
    return text.data;
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    memset(&page, 0, sizeof page);
    page.n_rows = 1;
    memcpy(page.rows[0].tenant, "a\"b\\c\nd\xFF", 9);
    memset(page.rows[0].model, '"', sizeof page.rows[0].model); /* no NUL, and each byte becomes two */
    page.rows[0].requests[1] = 7;
    char *text = text_of(&page);
    char wanted[512] = "bulkhead_requests_total{tenant=\"a\\\"b\\\\c?d?\",model=\"";
    size_t size = strlen(wanted);
    for (size_t i = 0; i < LIMIT_NAME_BYTES; i++) {
        wanted[size++] = '\\';
        wanted[size++] = '"';
    }
    memcpy(wanted + size, "\",code=\"200\"} 7\n", 17);
    assert_non_null(strstr(text, wanted));
    free(text);
}

static void test_a_count_of_rows_beyond_the_page_is_cut(void **state)
{
    (void)state;
    memset(&page, 0xFF, sizeof page); /* the largest of everything */
    char *text = text_of(&page);
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, "\nbulkhead_lease_seconds_total{")); at++)
        n++;
    assert_int_equal(n, LIMIT_METRICS_ROWS + 1);
    free(text);
}

static void test_no_page_is_families_without_pairs(void **state)
{
    (void)state;
    stats = (struct bus_stats){.connections = 3, .generation = UINT64_MAX};
    char *text = text_of(NULL);
    assert_non_null(strstr(text, "# TYPE bulkhead_batch_size histogram\n# HELP"));
    assert_non_null(strstr(text, "\nbulkhead_connections 3\n"));
    assert_non_null(strstr(text, "\nbulkhead_catalog_generation 18446744073709551615\n"));
    free(text);
}

static void test_buckets_add_up(void **state)
{
    (void)state;
    memset(&page, 0, sizeof page);
    page.n_rows = 1;
    page.rows[0].tenant[0] = 't';
    static const uint64_t took_ns[] = {0, 16384, 16385, 32768, UINT64_C(1) << 35, UINT64_MAX};
    for (size_t i = 0; i < sizeof took_ns / sizeof took_ns[0]; i++)
        bus_metrics_took(&page.rows[0].duration, took_ns[i]);
    char *text = text_of(&page);
#define D "\nbulkhead_request_duration_seconds_"
#define L "tenant=\"t\",model=\"\""
    assert_non_null(strstr(text, D "bucket{" L ",le=\"0.000016384\"} 2\n"));
    assert_non_null(strstr(text, D "bucket{" L ",le=\"0.000032768\"} 4\n"));
    assert_non_null(strstr(text, D "bucket{" L ",le=\"34.359738368\"} 5\n"));
    assert_non_null(strstr(text, D "bucket{" L ",le=\"+Inf\"} 6\n"));
    assert_non_null(strstr(text, D "count{" L "} 6\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_a_count_of_rows_beyond_the_page_is_cut),
        cmocka_unit_test(test_no_page_is_families_without_pairs),
        cmocka_unit_test(test_buckets_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
