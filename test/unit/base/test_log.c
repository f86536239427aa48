/* Log lines: one JSON object, one line, one write, whatever is in it. stderr is a pipe while a test writes. */
#include "base/log.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <yyjson.h>

#include <cmocka.h>

static int pipe_fds[2], stderr_kept;
static char captured[1 << 16];

/* Packets: each read gives what one write wrote. */
static int setup(void **state)
{
    (void)state;
    if (pipe2(pipe_fds, O_CLOEXEC | O_DIRECT | O_NONBLOCK) < 0)
        return -1;
    stderr_kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    log_setup("test", LOG_LEVEL_INFO);
    return stderr_kept < 0 || dup2(pipe_fds[1], STDERR_FILENO) < 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)dup2(stderr_kept, STDERR_FILENO);
    fd_close(&stderr_kept);
    fd_close(&pipe_fds[0]);
    fd_close(&pipe_fds[1]);
    return 0;
}

/* What one write brought; size 0: nothing was written. */
static struct str line(void)
{
    ssize_t got = read(pipe_fds[0], captured, sizeof captured);
    return (struct str){captured, got > 0 ? (size_t)got : 0};
}

static const char *member(yyjson_doc *doc, const char *name)
{
    const char *text = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), name));
    return text ? text : "";
}

/* The next line as JSON, checked for what every line must have. */
static yyjson_doc *line_json(void)
{
    struct str s = line();
    assert_true(s.size > 0);
    assert_true(s.size <= PIPE_BUF); /* else lines of several processes could mix */
    assert_ptr_equal(memchr(s.data, '\n', s.size), s.data + s.size - 1);
    assert_true(str_is_utf8(s));
    yyjson_doc *doc = yyjson_read(s.data, s.size - 1, 0);
    assert_non_null(doc);
    assert_int_equal(strlen(member(doc, "time")), 24);
    assert_string_equal(member(doc, "role"), "test");
    assert_int_equal(yyjson_get_int(yyjson_obj_get(yyjson_doc_get_root(doc), "pid")), getpid());
    assert_int_equal(line().size, 0);
    return doc;
}

static void a_line_has_its_members(void **state)
{
    (void)state;
    errno = ENOENT;
    log_info("replica_started", "tenant=%s n=%d", "acme", 3);
    assert_int_equal(errno, ENOENT);
    yyjson_doc *doc = line_json();
    assert_string_equal(member(doc, "level"), "info");
    assert_string_equal(member(doc, "event"), "replica_started");
    assert_string_equal(member(doc, "message"), "tenant=acme n=3");
    yyjson_doc_free(doc);
}

static void levels_filter(void **state)
{
    (void)state;
    static const char *const names[] = {"alert", "error", "warn", "info", "debug"};
    for (int max = 0; max < LOG_LEVEL_COUNT; max++) {
        log_setup("test", (enum log_level)max);
        for (int level = 0; level < LOG_LEVEL_COUNT; level++) {
            log_write((enum log_level)level, "e", "m");
            if (level > max) {
                assert_int_equal(line().size, 0);
                continue;
            }
            yyjson_doc *doc = line_json();
            assert_string_equal(member(doc, "level"), names[level]);
            yyjson_doc_free(doc);
        }
    }
    for (int level = 0; level < LOG_LEVEL_COUNT; level++)
        assert_int_equal(log_level_from_name(names[level]), level);
    assert_int_equal(log_level_from_name("loud"), -1);
    assert_int_equal(log_level_from_name(""), -1);
}

static void hostile_content_stays_one_line(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "",
        "\"},{\"level\":\"alert\"",
        "a\nb\r\nc",
        "\\",
        "\\u0000",
        "\x1B[31mred",
        "\x7F",
        "\xFF\xFE\xC0\xAF",
        "\xE2\x80\xA8\xE2\x80\xA9",
        "é€🐙",
        "\xED\xA0\x80",
        "%s%n%d",
        "{}[]:,\t",
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        log_warn("event", "%s", hostile[i]);
        yyjson_doc *doc = line_json();
        if (str_is_utf8(str_from(hostile[i])))
            assert_string_equal(member(doc, "message"), hostile[i]);
        yyjson_doc_free(doc);
        log_warn(hostile[i], "x");
        yyjson_doc_free(line_json());
    }
}

/* The longest messages of every byte: escaped they are six times as long, and still one write that cannot mix. */
static void long_messages_are_cut_and_stay_json(void **state)
{
    (void)state;
    static char text[10001];
    for (int c = 1; c < 256; c++) {
        memset(text, c, sizeof text - 1);
        log_info("long", "%s", text);
        yyjson_doc *doc = line_json();
        assert_true(strlen(member(doc, "message")) >= 400); /* cut, not lost */
        yyjson_doc_free(doc);
    }
    static char mixed[3001];
    for (size_t i = 0; i < 1000; i++)
        memcpy(mixed + 3 * i, "€", 3);
    for (size_t shift = 0; shift < 3; shift++) {
        log_info("long", "%.*s%s", (int)shift, "aa", mixed);
        yyjson_doc_free(line_json());
    }
}

static void a_long_event_is_not_lost(void **state)
{
    (void)state;
    static char text[10001];
    memset(text, '\x01', sizeof text - 1);
    log_info(text, "%s", text);
    yyjson_doc *doc = line_json();
    yyjson_doc_free(doc);
}

static void random_content_stays_json(void **state)
{
    (void)state;
    uint32_t seed = 7;
    for (int round = 0; round < 3000; round++) {
        char text[1200];
        seed = seed * 1664525 + 1013904223;
        size_t size = (seed >> 8) % sizeof text;
        for (size_t i = 0; i < size; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = (char)(seed >> 24);
        }
        log_info("random", "%.*s", (int)size, text);
        yyjson_doc_free(line_json());
    }
}

static void a_closed_stderr_hurts_nobody(void **state)
{
    (void)state;
    (void)close(STDERR_FILENO);
    errno = EDOM;
    log_info("e", "m");
    assert_int_equal(errno, EDOM);
    assert_true(dup2(pipe_fds[1], STDERR_FILENO) >= 0);
}

#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAPTURED(a_line_has_its_members),         CAPTURED(levels_filter),
        CAPTURED(hostile_content_stays_one_line), CAPTURED(long_messages_are_cut_and_stay_json),
        CAPTURED(a_long_event_is_not_lost),       CAPTURED(random_content_stays_json),
        CAPTURED(a_closed_stderr_hurts_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
