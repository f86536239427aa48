/* explain: a field of a resource, or the wall around a model. */
#include "cli_internal.h"

#define TOPIC_COLUMNS   9
#define VERDICT_COLUMNS 15
#define FACT_COLUMNS    14

static enum cli_exit explain_field(const struct cli_call *call)
{
    _buf_ struct buf text;
    buf_init(&text, MIB);
    struct error err = {0};
    int rc = resource_explain(str_from(call->arguments[0]), &text, &err);
    if (rc < 0)
        return cli_usage(call, "%s", error_text(&err, rc));
    fwrite(text.data, 1, text.size, stdout); /* cli_main looks at ferror(stdout) */
    return CLI_DONE;
}

static const char *text_at(yyjson_val *object, const char *name)
{
    const char *text = yyjson_get_str(yyjson_obj_get(object, name));
    return text ? text : "?";
}

static void print_fact(const char *name, const char *text)
{
    printf("  %-*s", FACT_COLUMNS, name);
    cli_print_wrapped(text, FACT_COLUMNS + 2);
}

static void print_namespaces(yyjson_val *namespaces)
{
    _buf_ struct buf line;
    buf_init(&line, 4 * KIB);
    yyjson_obj_iter each = yyjson_obj_iter_with(namespaces);
    for (yyjson_val *name = yyjson_obj_iter_next(&each); name; name = yyjson_obj_iter_next(&each)) {
        yyjson_val *value = yyjson_obj_iter_get_val(name);
        buf_format(&line, "%s%s %llu%s", line.size > 0 ? ", " : "", yyjson_get_str(name),
                   (unsigned long long)yyjson_get_uint(yyjson_obj_get(value, "inode")),
                   yyjson_get_bool(yyjson_obj_get(value, "own")) ? "" : " (the server's)");
    }
    print_fact("namespaces", buf_terminate(&line));
}

static void print_blocked(yyjson_val *blocked)
{
    _buf_ struct buf line;
    buf_init(&line, 4 * KIB);
    buf_format(&line, "%llu system calls", (unsigned long long)yyjson_get_uint(yyjson_obj_get(blocked, "count")));
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_obj_get(blocked, "calls"));
    for (yyjson_val *call = yyjson_arr_iter_next(&each); call; call = yyjson_arr_iter_next(&each))
        buf_format(&line, "%s%.40s %llu", each.idx > 1 ? ", " : ": ", text_at(call, "call"),
                   (unsigned long long)yyjson_get_uint(yyjson_obj_get(call, "count")));
    print_fact("refused", buf_terminate(&line));
}

static void print_replica(yyjson_val *r)
{
    static const char *const seccomp[] = {"none", "strict", "a filter"};
    char text[128];
    uint64_t mode = yyjson_get_uint(yyjson_obj_get(r, "seccomp"));
    printf("\nREPLICA ");
    cli_print(stdout, str_from(text_at(r, "name")));
    printf(", version %llu\n", (unsigned long long)yyjson_get_uint(yyjson_obj_get(r, "version")));
    print_fact("wall", text_at(r, "wall"));
    (void)snprintf(text, sizeof text, "%lld, uid %llu", (long long)yyjson_get_sint(yyjson_obj_get(r, "pid")),
                   (unsigned long long)yyjson_get_uint(yyjson_obj_get(r, "uid"))); /* fits */
    print_fact("pid", text);
    yyjson_val *besides = yyjson_obj_get(r, "besides");
    if (besides) {
        (void)snprintf(text, sizeof text, "%llu other replicas in this worker, of %llu other tenants",
                       (unsigned long long)yyjson_get_uint(yyjson_obj_get(besides, "replicas")),
                       (unsigned long long)yyjson_get_uint(yyjson_obj_get(besides, "tenants"))); /* fits */
        print_fact("shared", text);
    }
    (void)snprintf(text, sizeof text, "%.64s%s", text_at(r, "cpus"),
                   yyjson_get_bool(yyjson_obj_get(r, "ownCpus")) ? " (its own: no other replica's)" : ""); /* fits */
    print_fact("cpus", text);
    print_fact("cgroup", text_at(r, "cgroup")[0] ? text_at(r, "cgroup") : "none");
    print_namespaces(yyjson_obj_get(r, "namespaces"));
    (void)snprintf(text, sizeof text, "%s; no new privileges: %s; capabilities %.16s", mode < 3 ? seccomp[mode] : "?",
                   yyjson_get_bool(yyjson_obj_get(r, "noNewPrivs")) ? "yes" : "no",
                   text_at(r, "capabilities")); /* fits */
    print_fact("seccomp", text);
    print_blocked(yyjson_obj_get(r, "blockedCalls"));
    print_fact("kernel", text_at(r, "kernel"));
}

static void print_walls(yyjson_val *root)
{
    yyjson_val *item;
    printf("Model ");
    cli_print(stdout, str_from(text_at(root, "tenant")));
    putchar('/');
    cli_print(stdout, str_from(text_at(root, "model")));
    printf(", version %llu: level ", (unsigned long long)yyjson_get_uint(yyjson_obj_get(root, "version")));
    cli_print(stdout, str_from(text_at(root, "level")));
    printf(" (its tenant demands at least ");
    cli_print(stdout, str_from(text_at(root, "minimum")));
    printf(")\n");
    if (yyjson_obj_get(root, "lender")) {
        printf("Lent by ");
        cli_print(stdout, str_from(text_at(root, "lender")));
        printf(", served by ");
        cli_print(stdout, str_from(text_at(root, "servedBy")));
        printf(".\n");
    }
    if (!yyjson_get_bool(yyjson_obj_get(root, "available"))) {
        printf("IT CANNOT RUN: ");
        cli_print_wrapped(text_at(root, "text"), 15);
    }
    if (!yyjson_get_bool(yyjson_obj_get(root, "measured")))
        printf("No replica of this version runs: this is what the level is meant to be, not what was seen.\n");
    printf("\n%-*s  %-*s  %s\n", TOPIC_COLUMNS, "TOPIC", VERDICT_COLUMNS, "VERDICT", "BY WHAT");
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_obj_get(root, "walls"));
    while ((item = yyjson_arr_iter_next(&each))) {
        printf("%-*.20s  %-*.20s  ", TOPIC_COLUMNS, text_at(item, "topic"), VERDICT_COLUMNS, text_at(item, "verdict"));
        cli_print_wrapped(text_at(item, "by"), TOPIC_COLUMNS + VERDICT_COLUMNS + 4);
    }
    each = yyjson_arr_iter_with(yyjson_obj_get(root, "replicas"));
    while ((item = yyjson_arr_iter_next(&each)))
        print_replica(item);
}

static enum cli_exit explain_model(const struct cli_call *call)
{
    const char *tenant = cli_flag_value(call, "tenant"), *model = call->arguments[1];
    int format = cli_format(call);
    if (format < 0)
        return CLI_USAGE;
    if (!str_is_name(str_from(tenant)) || !str_is_name(str_from(model)))
        return cli_complain("a tenant and a model are named by lower-case DNS-1123 tokens");
    char target[CLI_TARGET_BYTES];
    (void)snprintf(target, sizeof target, "/v1alpha1/explain?tenant=%s&model=%s", tenant,
                   model); /* names are bounded */
    _answer_ struct cli_answer answer = {0};
    enum cli_exit status = cli_admin(call, "GET", target, STR(""), &answer);
    if (status != CLI_DONE)
        return status;
    if (!answer.json)
        return cli_complain("the server's answer is not JSON");
    if (format != CLI_TABLE)
        return cli_print_value(yyjson_doc_get_root(answer.json), (enum cli_format)format);
    print_walls(yyjson_doc_get_root(answer.json));
    return CLI_DONE;
}

/* One word is a kind or its field, two are a model of a tenant: nothing means both. */
enum cli_exit cli_explain(const struct cli_call *call)
{
    const char *tenant = cli_flag_value(call, "tenant");
    if (call->n_arguments == 1 && !tenant && !cli_flag_value(call, "output"))
        return explain_field(call);
    if (call->n_arguments == 1 || resource_kind_from_name(str_from(call->arguments[0])) != RESOURCE_MODEL)
        return cli_usage(call, "explain takes either one word, KIND[.field], or: model NAME --tenant T");
    if (!tenant)
        return cli_usage(call, "explain model %s needs --tenant T", call->arguments[1]);
    return explain_model(call);
}
