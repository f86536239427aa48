/* YAML to JSON and back. */
#include "cli/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int read_yaml(const char *yaml, struct buf *json, struct error *err)
{
    buf_init(json, 4 * MIB);
    *err = (struct error){0};
    return cli_yaml_to_json(str_from(yaml), json, err);
}

static void expect_json(const char *yaml, const char *expected)
{
    struct buf json;
    struct error err;
    int rc = read_yaml(yaml, &json, &err);
    if (rc < 0)
        fail_msg("%s: %s", yaml, err.text);
    assert_string_equal(buf_terminate(&json), expected);
    buf_done(&json);
}

static void expect_refused(const char *yaml, const char *text)
{
    struct buf json;
    struct error err;
    assert_true(read_yaml(yaml, &json, &err) < 0);
    if (!strstr(err.text, text))
        fail_msg("%s: \"%s\" does not hold \"%s\"", yaml, err.text, text);
    buf_done(&json);
}

static void test_core_schema(void **state)
{
    (void)state;
    expect_json("[~, null, Null, NULL, ]", "[[null,null,null,null]]");
    expect_json("[true, True, TRUE, false, False, FALSE]", "[[true,true,true,false,false,false]]");
    expect_json("[0, 7, +7, -7, 007, 0x1F, 0o17, 18446744073709551615]", "[[0,7,7,-7,7,31,15,18446744073709551615]]");
    expect_json("[1.5, .5, 1., -0.25, 1e3, 1.5E-3, +.5e+2]", "[[1.5,0.5,1.0,-0.25,1e3,1.5e-3,0.5e+2]]");
    /* what YAML 1.1 read otherwise, and what only looks like a number */
    expect_json("[yes, no, on, off, y, 12:30, 1_000, 0b11, 256Mi, 5m, 0ms, 1.2.3, -, ., e3, 0x, 0o8, -0x1]",
                "[[\"yes\",\"no\",\"on\",\"off\",\"y\",\"12:30\",\"1_000\",\"0b11\",\"256Mi\",\"5m\",\"0ms\",\"1.2.3\","
                "\"-\",\".\",\"e3\",\"0x\",\"0o8\",\"-0x1\"]]");
    expect_json("['1', \"true\", '', \"\\u00e9\\0\"]", "[[\"1\",\"true\",\"\",\"\xC3\xA9\\u0000\"]]");
    expect_json("a: |\n  1\n  2\n", "[{\"a\":\"1\\n2\\n\"}]");
}

static void test_documents(void **state)
{
    (void)state;
    expect_json("", "[]");
    expect_json("# nothing\n", "[]");
    expect_json("---\n---\n", "[]");
    expect_json("a: 1\n---\n---\nb: 2\n---\n", "[{\"a\":1},{\"b\":2}]");
    expect_json("\xEF\xBB\xBF"
                "a: 1\n",
                "[{\"a\":1}]");
    expect_json("{\"a\": [1, {\"b\": null}]}", "[{\"a\":[1,{\"b\":null}]}]"); /* JSON is YAML */

    struct yaml_place places[YAML_DOCUMENTS_MAX];
    uint32_t n = 0;
    struct buf json;
    struct error err = {0};
    buf_init(&json, MIB);
    assert_int_equal(cli_yaml_to_json_places(STR("# first\na: 1\n---\n---\n\nb: 2\n"), &json, places, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(places[0].number, 1);
    assert_int_equal(places[0].line, 2);
    assert_int_equal(places[1].number, 3);
    assert_int_equal(places[1].line, 6);
    buf_done(&json);
}

static void test_anchors(void **state)
{
    (void)state;
    expect_json("a: &x {b: [1]}\nc: *x\nd: [*x, *x]\n",
                "[{\"a\":{\"b\":[1]},\"c\":{\"b\":[1]},\"d\":[{\"b\":[1]},{\"b\":[1]}]}]");
    expect_json("a: &x 1\nb: &x 2\nc: *x\n", "[{\"a\":1,\"b\":2,\"c\":2}]");
    expect_refused("a: *x\n", "line 1, column 4: an alias to an anchor that is not there");
    expect_refused("a: &x 1\n---\nb: *x\n", "line 3, column 4: an alias to an anchor"); /* of another document */
    expect_refused("a: &x [*x]\n", "an alias inside of its own anchor");
    expect_refused("a: &x b\n*x : 1\n", "an alias cannot be a key");
}

static void test_refused(void **state)
{
    (void)state;
    expect_refused("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key \"a\" stands twice");
    expect_refused("a: 1\n\"a\": 3\n", "line 2, column 1: the key \"a\" stands twice");
    expect_refused("a: {b: {c: 1, c: 1}}\n", "the key \"c\" stands twice");
    expect_refused("a: !!str 1\n", "line 1, column 4: tags are not taken");
    expect_refused("a: ! 1\n", "tags are not taken");
    expect_refused("!x {a: 1}\n", "tags are not taken");
    expect_refused("%TAG !e! tag:x:\n---\na: 1\n", "tags are not taken");
    expect_refused("{<<: {a: 1}}", "merge keys");
    expect_refused("? [a]\n: 1\n", "a key is a plain or quoted text");
    expect_refused("a: .inf\n", "infinity and NaN");
    expect_refused("a: -.INF\n", "infinity and NaN");
    expect_refused("a: 1e999\n", "the number is too large");
    expect_refused("a: 0x10000000000000000\n", "the number is too large");
    expect_refused("a: [1\nb: }\n", "line 2, column");
    expect_refused("\tx: 1\n", "line 1");
    expect_refused("a: \"\x01\"", "byte 4");
    expect_refused("a: \xFF", "byte 3");
}

static void test_same_key_elsewhere(void **state)
{
    (void)state;
    expect_json("a: {a: {a: 1}}\nb: [{a: 1}, {a: 2}]\n", "[{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":2}]}]");
}

static char *repeat(const char *text, size_t n)
{
    size_t size = strlen(text);
    char *all = malloc(size * n + 1);
    assert_non_null(all);
    for (size_t i = 0; i < n; i++)
        memcpy(all + i * size, text, size);
    all[size * n] = '\0';
    return all;
}

static void test_depth(void **state)
{
    (void)state;
    char *open = repeat("[", YAML_DEPTH_MAX), *closed = repeat("]", YAML_DEPTH_MAX);
    char text[3 * YAML_DEPTH_MAX];
    struct buf json;
    struct error err;
    (void)snprintf(text, sizeof text, "%s%s", open, closed);
    assert_int_equal(read_yaml(text, &json, &err), 0);
    buf_done(&json);
    (void)snprintf(text, sizeof text, "[%s%s]", open, closed);
    expect_refused(text, "nested too deeply");
    /* by alias: 33 + 33 */
    char half[600], *nested = repeat("[", 32), *ended = repeat("]", 32);
    (void)snprintf(half, sizeof half, "- &x %s1%s\n- %s*x%s\n", nested, ended, nested, ended);
    expect_refused(half, "nested too deeply");
    free(open);
    free(closed);
    free(nested);
    free(ended);
}

static void test_size(void **state)
{
    (void)state;
    /* nine to the tenth copies of an x */
    char yaml[4096] = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n";
    for (int i = 1; i < 10; i++) {
        char line[200];
        (void)snprintf(line, sizeof line, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1,
                       i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
        memcpy(yaml + strlen(yaml), line, strlen(line) + 1);
    }
    expect_refused(yaml, "too large once its aliases are written out");

    struct buf json;
    struct error err = {0};
    char *large = repeat("#", YAML_BYTES_MAX + 1);
    buf_init(&json, MIB);
    assert_int_equal(cli_yaml_to_json((struct str){large, YAML_BYTES_MAX}, &json, &err), 0);
    buf_clear(&json);
    assert_int_equal(cli_yaml_to_json((struct str){large, YAML_BYTES_MAX + 1}, &json, &err), -ERROR_LIMIT);
    buf_done(&json);
    free(large);
    /* anchors are looked up one by one */
    char *anchors = repeat("- &a 1\n", YAML_ANCHORS_MAX + 1);
    expect_refused(anchors, "too many anchors");
    free(anchors);
}

static char *write_yaml(const char *json)
{
    yyjson_doc *document = yyjson_read(json, strlen(json), 0);
    assert_non_null(document);
    struct buf yaml;
    buf_init(&yaml, MIB);
    cli_yaml_write(yyjson_doc_get_root(document), &yaml);
    assert_int_equal(yaml.failed, 0);
    char *text = strdup(buf_terminate(&yaml));
    buf_done(&yaml);
    yyjson_doc_free(document);
    return text;
}

static void test_write(void **state)
{
    (void)state;
    char *yaml = write_yaml("{\"kind\":\"Model\",\"spec\":{\"memory\":\"256Mi\",\"args\":[],\"labels\":{},"
                            "\"list\":[{\"a\":1,\"b\":[true,null]},[1,2]],\"x\":1.5}}");
    assert_string_equal(yaml, "kind: Model\n"
                              "spec:\n"
                              "  memory: 256Mi\n"
                              "  args: []\n"
                              "  labels: {}\n"
                              "  list:\n"
                              "    - a: 1\n"
                              "      b:\n"
                              "        - true\n"
                              "        - null\n"
                              "    - - 1\n"
                              "      - 2\n"
                              "  x: 1.5\n");
    free(yaml);
}

/* Strings that would be something else, here or in a reader of YAML 1.1. */
static void test_write_quotes(void **state)
{
    (void)state;
    static const char *const quoted[] = {
        "",           "1",    "1.5", "true", "Null", "~", "yes", "No", "on", "y",   "0x1F", "0b1", "1_000", "12:30",
        "2024-01-01", "-",    "- a", "a b",  "a: b", "#", "&a",  "*a", "!a", "%a",  "@",    "`",   "[",     "{",
        "'",          ".inf", "?",   "|",    ">",    "=", "<<",  " a", "a ", "---", "...",  "1e3", "+1",    "0o7"};
    for (size_t i = 0; i < sizeof quoted / sizeof *quoted; i++) {
        char json[64];
        (void)snprintf(json, sizeof json, "\"%s\"", quoted[i]);
        char *yaml = write_yaml(json);
        if (yaml[0] != '"')
            fail_msg("%s stands without quotes", quoted[i]);
        char expected[70];
        (void)snprintf(expected, sizeof expected, "[%s]", json);
        if (quoted[i][0] != '\0' || strcmp(yaml, "\"\"\n") != 0)
            expect_json(yaml, expected);
        free(yaml);
    }
    static const char *const plain[] = {"acme", "digits/digits.onnx", "256Mi", "5m", "0ms", "1h30m", "a-b_c.d"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        char json[64];
        (void)snprintf(json, sizeof json, "\"%s\"", plain[i]);
        char *yaml = write_yaml(json);
        assert_int_equal(strlen(yaml), strlen(plain[i]) + 1);
        free(yaml);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const values[] = {
        "{\"a\":{\"b\":[[],{},[[1]],{\"c\":{\"d\":\"x\"}}]},\"e\":\"\"}",
        "{\"line\\nbreak\":\"tab\\tand\\r\\n\",\"\":\"empty key\",\"a: b\":\"c\"}",
        "[\"\xC2\x85\",\"\xE2\x80\xA8\",\"\xEF\xBB\xBF\",\"\xF0\x9F\x9A\xA2\",\"\\u0000\",\"\x7F\",\"\xC2\x80\"]",
        "[0,-1,18446744073709551615,-9223372036854775808,0.1,1e100,-2.5e-10]",
        "[true,false,null,\"true\",\"null\"]",
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char *yaml = write_yaml(values[i]);
        struct buf json;
        struct error err;
        if (read_yaml(yaml, &json, &err) < 0)
            fail_msg("%s: %s", yaml, err.text);
        yyjson_doc *before = yyjson_read(values[i], strlen(values[i]), 0);
        yyjson_doc *after = yyjson_read(json.data, json.size, 0);
        assert_true(yyjson_equals(yyjson_doc_get_root(before), yyjson_arr_get_first(yyjson_doc_get_root(after))));
        yyjson_doc_free(before);
        yyjson_doc_free(after);
        buf_done(&json);
        free(yaml);
    }
    /* a key too long for YAML's simple form */
    char *key = repeat("k", 2000), json[2100];
    (void)snprintf(json, sizeof json, "{\"%s\":{\"a\":1}}", key);
    char *yaml = write_yaml(json), expected[2110];
    (void)snprintf(expected, sizeof expected, "[%s]", json);
    expect_json(yaml, expected);
    free(yaml);
    free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_core_schema),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_anchors),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_same_key_elsewhere),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_write_quotes),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
