/* A report of `bulkhead bench isolation`, read for `bulkhead advise`. The file may be anybody's: numbers are taken from
 * it, and no words. */
#include "cli_bench_internal.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

#define FILE_BYTES_MAX (2 * BENCH_JSON_BYTES)

static double number(yyjson_val *object, const char *name)
{
    double value = yyjson_get_num(yyjson_obj_get(object, name)); /* 0 when it is none */
    return isfinite(value) && value > 0 ? value : 0;
}

static bool same_text(yyjson_val *host, const char *name, const char *ours)
{
    const char *text = yyjson_get_str(yyjson_obj_get(host, name));
    return text && strcmp(text, ours) == 0;
}

static bool made_here(yyjson_val *host)
{
    _free_ struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return false;
    bench_host_identify(b);
    return same_text(host, "cpu", b->cpu) && same_text(host, "kernel", b->kernel) &&
           yyjson_get_uint(yyjson_obj_get(host, "cpus")) == b->n_cpus &&
           yyjson_get_uint(yyjson_obj_get(host, "memoryBytes")) == b->memory_bytes;
}

/* "2026-11-21T…" as the digits and dashes of its day. */
static void append_day(yyjson_val *root, struct buf *text)
{
    const char *began = yyjson_get_str(yyjson_obj_get(root, "began"));
    bool day = began && strlen(began) > 10 && strspn(began, "0123456789-") >= 10;
    buf_format(text, "measured here on %.*s", day ? 10 : INT_MAX, day ? began : "an unknown day");
}

static void append_level(yyjson_val *root, yyjson_val *level, struct buf *text)
{
    yyjson_val *cold = yyjson_obj_get(level, "coldStartMs"), *added = yyjson_obj_get(level, "addedLatencyMs");
    yyjson_val *memory = yyjson_obj_get(level, "idleMemory"), *neighbour = yyjson_obj_get(level, "neighbour");
    double rate = number(level, "requestsPerSecond"), further = number(memory, "furtherPssBytes");
    append_day(root, text);
    buf_format(text,
               ": first answer after a cold start %.3g ms (p99 %.3g), added to each request %.3g ms (p99 %.3g), "
               "%.3g requests/s of a model that computes 5 ms",
               number(cold, "p50"), number(cold, "p99"), number(added, "p50"), number(added, "p99"), rate);
    if (further > 0)
        buf_format(text, ", one more idle replica %.3g MiB", further / (double)MIB);
    if (number(neighbour, "p99Inflation") > 0)
        buf_format(text, ", a flooding neighbour makes p99 %.3g times as long", number(neighbour, "p99Inflation"));
    if (yyjson_get_bool(yyjson_obj_get(yyjson_obj_get(root, "host"), "busy")))
        buf_append_text(text, "; other work went on here meanwhile");
}

static int report_use(yyjson_val *root, const char *path, enum isolate_level level, struct buf *text)
{
    const char *kind = yyjson_get_str(yyjson_obj_get(root, "kind"));
    if (!kind || strcmp(kind, BENCH_KIND) != 0) {
        buf_format(text, "%s is no report of `bulkhead bench isolation`", path);
        return -1;
    }
    if (!made_here(yyjson_obj_get(root, "host"))) {
        buf_format(text, "%s was measured on another host, or with another kernel: repeat `bulkhead bench isolation`",
                   path);
        return -1;
    }
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_obj_get(root, "levels"));
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
        const char *name = yyjson_get_str(yyjson_obj_get(item, "name"));
        if (!name || strcmp(name, isolate_level_names[level]) != 0)
            continue;
        if (number(yyjson_obj_get(item, "coldStartMs"), "p50") > 0 &&
            number(yyjson_obj_get(item, "addedLatencyMs"), "p50") > 0) {
            append_level(root, item, text);
            return 1;
        }
    }
    buf_format(text, "%s has no figures of this level", path);
    return -1;
}

int cli_measured(const char *path, enum isolate_level level, struct buf *text)
{
    _buf_ struct buf content = {0};
    if (!path && access(BENCH_FILE_JSON, F_OK) != 0)
        return 0;
    path = path ? path : BENCH_FILE_JSON;
    if (cli_read_file(path, FILE_BYTES_MAX, &content) != CLI_DONE) {
        buf_format(text, "%s cannot be read", path);
        return -1;
    }
    yyjson_doc *doc = yyjson_read(content.data, content.size, 0);
    int r = report_use(doc ? yyjson_doc_get_root(doc) : NULL, path, level, text);
    yyjson_doc_free(doc);
    return r;
}
