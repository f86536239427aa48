/* The frame: usage, help and exit statuses. Nothing here needs a server. */
#include "cli/cli_bench_internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int served_argc;
static char served[256];

static int serve(int argc, char **argv)
{
    served_argc = argc;
    served[0] = '\0';
    for (int i = 0; i < argc; i++)
        (void)snprintf(served + strlen(served), sizeof served - strlen(served), "%s ", argv[i]);
    return 7;
}

static char out[65536], complaint[65536];

static void redirect(int fd, int to, int *ret_saved)
{
    *ret_saved = dup(fd);
    assert_true(*ret_saved >= 0 && dup2(to, fd) == fd);
}

static void collect(FILE *file, char *text, size_t size)
{
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* Runs `bulkhead line`, with words parted at spaces. */
static int run(const char *line)
{
    static const struct cli_hooks hooks = {.serve = serve};
    char words[512], *argv[32] = {"bulkhead"};
    int argc = 1;
    (void)snprintf(words, sizeof words, "%s", line);
    char *rest = words;
    for (char *word = strsep(&rest, " "); word && *word && argc < 31; word = rest ? strsep(&rest, " ") : NULL)
        argv[argc++] = word;
    FILE *new_out = tmpfile(), *new_err = tmpfile();
    assert_true(new_out && new_err);
    int saved_out, saved_err;
    fflush(stdout);
    fflush(stderr);
    redirect(STDOUT_FILENO, fileno(new_out), &saved_out);
    redirect(STDERR_FILENO, fileno(new_err), &saved_err);
    int status = cli_main(&hooks, argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_err, STDERR_FILENO);
    close(saved_out);
    close(saved_err);
    collect(new_out, out, sizeof out);
    collect(new_err, complaint, sizeof complaint);
    return status;
}

static void test_usage(void **state)
{
    (void)state;
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"", "usage: bulkhead COMMAND"},
        {"frobnicate", "there is no command \"frobnicate\""},
        {"key", "bulkhead key create"},
        {"key eat", "bulkhead key revoke ID"},
        {"get", "get needs KIND [NAME]"},
        {"get models a b", "get does not take \"b\""},
        {"get models --frob", "get does not take --frob"},
        {"get models -x", "get does not take -x"},
        {"get models --tenant", "--tenant needs a value"},
        {"get models --tenant a --tenant b", "--tenant is given twice"},
        {"get models -o xml", "-o takes table, json or yaml"},
        {"get frogs", "there is no kind \"frogs\""},
        {"get server", "serve --config"},
        {"delete model", "delete needs KIND NAME"},
        {"delete model x", "needs --tenant T"},
        {"key create", "key create needs --tenant T"},
        {"apply", "apply needs --file FILE|-"},
        {"infer m --tenant t", "infer needs --input FILE.json"},
        {"explain", "explain needs KIND[.field]"},
        {"explain Frog", "there is no kind"},
        {"explain Model.spec.frog", "frog"},
        {"version now", "version does not take \"now\""},
        {"status --admin a --data b", "name the same thing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = run(cases[i].line);
        if (status != 2 || !strstr(complaint, cases[i].text) || out[0])
            fail_msg("bulkhead %s: %d, stdout \"%s\", stderr \"%s\"", cases[i].line, status, out, complaint);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"apply -f /nonexistent/x.yaml", "/nonexistent/x.yaml: No such file"},
        {"get models --admin /nonexistent/admin.sock", "/nonexistent/admin.sock"},
        {"status --data /nonexistent", "/nonexistent/admin.sock"},
        {"delete model a/b --tenant t", "\"a/b\" is not a name"},
        {"get models --tenant A/B", "\"A/B\" is not a tenant's name"},
        {"infer m --tenant t --input /nonexistent", "/nonexistent: No such file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = run(cases[i].line);
        if (status != 1 || !strstr(complaint, cases[i].text) || out[0])
            fail_msg("bulkhead %s: %d, stdout \"%s\", stderr \"%s\"", cases[i].line, status, out, complaint);
    }
}

static void test_help(void **state)
{
    (void)state;
    static const char *const commands[] = {"serve",      "apply",  "get",   "delete",  "key create", "key list",
                                           "key revoke", "status", "infer", "explain", "version"};
    assert_int_equal(run("--help"), 0);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        assert_non_null(strstr(out, commands[i]));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char line[64], usage[64];
        (void)snprintf(usage, sizeof usage, "usage: bulkhead %s", commands[i]);
        (void)snprintf(line, sizeof line, "%s --help", commands[i]);
        assert_int_equal(run(line), 0);
        assert_non_null(strstr(out, usage));
        (void)snprintf(line, sizeof line, "%s -h", commands[i]);
        assert_int_equal(run(line), 0);
        (void)snprintf(line, sizeof line, "help %s", commands[i]);
        assert_int_equal(run(line), 0);
        assert_non_null(strstr(out, usage));
    }
    assert_int_equal(run("serve --help"), 0);
    assert_non_null(strstr(out, "serve --data DIR [--listen ADDR:PORT] [--config FILE] [--allow-unlimited] "
                                "[--engines DIR]"));
}

static void test_local(void **state)
{
    (void)state;
    assert_int_equal(run("version"), 0);
    assert_string_equal(out, "bulkhead " BULKHEAD_VERSION "\n");
    assert_int_equal(run("--version"), 0);
    assert_int_equal(run("explain Model"), 0);
    assert_non_null(strstr(out, "spec.resources.memory"));
    assert_int_equal(run("explain model.spec.resources.memory"), 0);
    assert_non_null(strstr(out, "256Mi"));
}

static void test_serve_hook(void **state)
{
    (void)state;
    assert_int_equal(run("serve --data x --listen 1"), 7);
    assert_int_equal(served_argc, 5);
    assert_string_equal(served, "serve --data x --listen 1 ");
}

/* Errors of a file name it, the document and the line. */
static void test_apply_checks(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        {"a: [1\n", ".yaml: line 2, column 1: "},
        {"# nothing\n", ".yaml: there is nothing in it"},
        {"kind: Tenant\n", ".yaml: document 1 (line 1): "},
        {"---\n---\napiVersion: bulkhead.dev/v1alpha1\nkind: Tenant\nmetadata: {name: a}\nspec: {wieght: 1}\n",
         ".yaml: document 2 (line 3): Tenant a: spec.wieght: unknown field (did you mean \"weight\"?)"},
        {"apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nmetadata: {name: a}\n", "serve --config"},
        {"apiVersion: bulkhead.dev/v1alpha1\nkind: Key\nmetadata: {name: a}\n", "a Key is read-only"},
        {"apiVersion: bulkhead.dev/v1alpha1\nkind: Model\nmetadata: {name: m, tenant: a}\n"
         "spec: {engine: onnx, source: 'https://x/y'}\n",
         "Model a/m: spec.source: \"https://x/y\": only a file for now"},
        {"apiVersion: bulkhead.dev/v1alpha1\nkind: Model\nmetadata: {name: m, tenant: a}\n"
         "spec: {engine: onnx, source: /proc/self/ns}\n",
         "a symbolic link; put the file itself there"},
        {"apiVersion: bulkhead.dev/v1alpha1\nkind: Model\nmetadata: {name: m, tenant: a}\n"
         "spec: {engine: onnx, source: nope.onnx}\n",
         "Model a/m: spec.source: \"nope.onnx\": No such file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[] = "/tmp/bulkhead-cli-XXXXXX.yaml", line[128];
        int fd = mkstemps(path, 5);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, cases[i].yaml, strlen(cases[i].yaml)), strlen(cases[i].yaml));
        close(fd);
        (void)snprintf(line, sizeof line, "apply -f %s --admin /nonexistent.sock", path);
        int status = run(line);
        unlink(path);
        if (status != 1 || !strstr(complaint, cases[i].text) || !strstr(complaint, path))
            fail_msg("%s: %d \"%s\"", cases[i].yaml, status, complaint);
    }
}

static void test_figures(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "0"},          {0.4171, "0.417"}, {55.84, "55.8"},     {999.4, "999"},         {999.6, "1,000"},
        {3034.5, "3,034"}, {25425, "25,425"}, {123456, "123,456"}, {1000000, "1,000,000"}, {999999999, "999,999,999"},
        {1e15, "1e+15"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[BENCH_FIGURE_BYTES];
        assert_string_equal(bench_figure(cases[i].value, text), cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),   cmocka_unit_test(test_refused),    cmocka_unit_test(test_help),
        cmocka_unit_test(test_local),   cmocka_unit_test(test_serve_hook), cmocka_unit_test(test_apply_checks),
        cmocka_unit_test(test_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
