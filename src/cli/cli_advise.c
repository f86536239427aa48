/* advise: which level a model needs, by the rules of the ladder, on this host. */
#include "cli/yaml.h"
#include "cli_internal.h"

#include "isolate/isolate_survey.h"
#include "ladder/ladder_advice.h"

#include <unistd.h>

#define FILE_BYTES_MAX (64 * KIB)
#define UNKNOWN        UINT8_MAX

struct advise {
    const struct cli_call *call;
    uint8_t answers[LADDER_QUESTION_COUNT]; /* UNKNOWN: not given yet */
    enum ladder_level minimum;              /* the tenant's floor */
    struct isolate_survey rows[ISOLATE_SURVEY_ROWS];
    struct ladder_advice advice;
    enum ladder_level level; /* what is proposed: the advised one, or a stronger one where that is not there */
    bool available;
};

/* --- answers --- */

static enum cli_exit answer_take(struct advise *a, int q, const char *text, const char *where)
{
    int answer = ladder_answer_find((enum ladder_question_id)q, str_from(text));
    if (answer >= 0) {
        a->answers[q] = (uint8_t)answer;
        return CLI_DONE;
    }
    const char *const *answers = ladder_questions[q].answers;
    return cli_usage(a->call, "%s%s takes %s, %s%s%s, not \"%.40s\"", where, ladder_questions[q].name, answers[0],
                     answers[1], answers[2] ? " or " : "", answers[2] ? answers[2] : "", text);
}

static enum cli_exit minimum_take(struct advise *a, const char *text)
{
    enum ladder_level level = ladder_level_from_name(str_from(text));
    if (level == LADDER_NONE)
        return cli_usage(a->call, "minimum takes shared, pool, process, container or microvm, not \"%.40s\"", text);
    a->minimum = level > a->minimum ? level : a->minimum;
    return CLI_DONE;
}

static enum cli_exit member_take(struct advise *a, const char *path, const char *name, yyjson_val *value)
{
    /* `burst: true` is what one writes for yes */
    const char *text = yyjson_is_true(value) ? "yes" : yyjson_is_false(value) ? "no" : yyjson_get_str(value);
    char where[64];
    (void)snprintf(where, sizeof where, "%.60s: ", path); /* cut is fine: for people */
    if (!text)
        return cli_complain("%s%s: expected one of its answers", where, name);
    if (strcmp(name, "minimum") == 0)
        return minimum_take(a, text);
    for (int q = 0; q < LADDER_QUESTION_COUNT; q++)
        if (strcmp(name, ladder_questions[q].name) == 0)
            return answer_take(a, q, text, where);
    return cli_complain("%sthere is no question \"%.40s\"", where, name);
}

static enum cli_exit file_take(struct advise *a, const char *path)
{
    _buf_ struct buf yaml, json;
    struct error err = {0};
    buf_init(&json, 4 * FILE_BYTES_MAX);
    enum cli_exit status = cli_read_file(path, FILE_BYTES_MAX, &yaml);
    if (status != CLI_DONE)
        return status;
    int r = cli_yaml_to_json((struct str){yaml.data, yaml.size}, &json, &err);
    if (r < 0)
        return cli_complain("%s: %s", path, error_text(&err, r));
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    yyjson_val *list = doc ? yyjson_doc_get_root(doc) : NULL, *root = yyjson_arr_get_first(list);
    if (yyjson_arr_size(list) != 1 || !yyjson_is_obj(root))
        status = cli_complain("%s: expected one document of questions and their answers", path);
    yyjson_obj_iter each = yyjson_obj_iter_with(root);
    for (yyjson_val *key = NULL; status == CLI_DONE && (key = yyjson_obj_iter_next(&each));)
        status = member_take(a, path, yyjson_get_str(key), yyjson_obj_iter_get_val(key));
    yyjson_doc_free(doc);
    return status;
}

static enum cli_exit ask(struct advise *a, int q)
{
    const struct ladder_question *question = &ladder_questions[q];
    fprintf(stderr, "\n%s\n", question->text);
    for (int i = 0; question->answers[i]; i++)
        fprintf(stderr, "  %-10s %s\n", question->answers[i], question->meanings[i]);
    for (;;) {
        char line[80];
        fprintf(stderr, "%s? ", question->name);
        if (!fgets(line, sizeof line, stdin))
            return cli_complain("no answer was given");
        line[strcspn(line, "\n")] = '\0';
        struct str text = str_trim(str_from(line));
        int answer = ladder_answer_find((enum ladder_question_id)q, text);
        if (answer >= 0) {
            a->answers[q] = (uint8_t)answer;
            return CLI_DONE;
        }
        fprintf(stderr, "please answer with one of the words on the left\n");
    }
}

/* From the file, then from flags, then by asking. */
static enum cli_exit answers_find(struct advise *a)
{
    const char *file = cli_flag_value(a->call, "file"), *minimum = cli_flag_value(a->call, "minimum");
    memset(a->answers, UNKNOWN, sizeof a->answers);
    enum cli_exit status = file ? file_take(a, file) : CLI_DONE;
    if (status == CLI_DONE && minimum)
        status = minimum_take(a, minimum);
    for (int q = 0; q < LADDER_QUESTION_COUNT && status == CLI_DONE; q++) {
        const char *text = cli_flag_value(a->call, ladder_questions[q].name);
        if (text)
            status = answer_take(a, q, text, "--");
    }
    for (int q = 0; q < LADDER_QUESTION_COUNT && status == CLI_DONE; q++) {
        if (a->answers[q] != UNKNOWN)
            continue;
        if (!isatty(STDIN_FILENO))
            return cli_usage(a->call, "advise needs --%s: %s", ladder_questions[q].name, ladder_questions[q].text);
        status = ask(a, q);
    }
    return status;
}

/* The floor of a tenant that the server knows; a new one has none. */
static enum cli_exit floor_find(struct advise *a)
{
    const char *tenant = cli_flag_value(a->call, "tenant");
    if (!tenant)
        return CLI_DONE;
    if (!str_is_name(str_from(tenant)))
        return cli_complain("\"%s\" is not a tenant's name", tenant);
    char target[CLI_TARGET_BYTES];
    (void)snprintf(target, sizeof target, "/v1alpha1/tenants/%s", tenant); /* names are bounded */
    struct wire_client_request request = {.method = "GET", .target = target, .body_fd = -1, .timeout_ms = 10000};
    _answer_ struct cli_answer answer = {0};
    enum cli_exit status = cli_admin_send(a->call, &request, &answer);
    if (status != CLI_DONE)
        return status;
    if (answer.status == 404)
        return CLI_DONE;
    yyjson_val *root = answer.json ? yyjson_doc_get_root(answer.json) : NULL;
    yyjson_val *first = yyjson_arr_get_first(yyjson_obj_get(root, "items"));
    const char *minimum =
        yyjson_get_str(yyjson_obj_get(yyjson_obj_get(yyjson_obj_get(first, "spec"), "isolation"), "minimum"));
    if (answer.status != 200 || !first)
        return cli_complain("the server does not tell what tenant %s demands", tenant);
    return minimum ? minimum_take(a, minimum) : CLI_DONE;
}

/* --- the advice --- */

/* As a server without --allow-unlimited would see it. */
static bool row_usable(const struct isolate_survey *row)
{
    return row->report.available && row->report.limits;
}

static const struct isolate_survey *row_of(const struct advise *a, enum ladder_level level)
{
    return &a->rows[level - 1];
}

/* What goes with the proposed level, such as a replica that is kept running, when that is not the advised one. */
static void follow(struct advise *a)
{
    struct ladder_advice stronger, *advice = &a->advice;
    uint32_t n = 0;
    ladder_advise(a->answers, a->level, &stronger);
    while (n < advice->n_rules && advice->rules[n]->effect == LADDER_RAISE)
        n++;
    for (uint32_t i = 0; i < stronger.n_rules && n < LADDER_RULES_MAX; i++)
        if (stronger.rules[i]->effect != LADDER_RAISE)
            advice->rules[n++] = stronger.rules[i];
    advice->n_rules = n;
    advice->keep_warm = stronger.keep_warm;
}

static void decide(struct advise *a)
{
    ladder_advise(a->answers, a->minimum, &a->advice);
    a->level = a->advice.level;
    for (int level = (int)a->advice.level; level < LADDER_LEVEL_COUNT && !a->available; level++) {
        a->available = row_usable(row_of(a, (enum ladder_level)level));
        if (a->available)
            a->level = (enum ladder_level)level;
    }
    if (a->level != a->advice.level)
        follow(a);
}

static void append_yaml(const struct advise *a, struct buf *yaml)
{
    const char *tenant = cli_flag_value(a->call, "tenant"), *model = cli_flag_value(a->call, "model");
    buf_format(yaml,
               "apiVersion: " RESOURCE_API_VERSION "\nkind: Model\nmetadata: {name: %s, tenant: %s}\nspec:\n"
               "  engine: onnx\n  source: %s.onnx\n  isolation: {level: %s}\n",
               model ? model : "my-model", tenant ? tenant : "my-tenant", model ? model : "my-model",
               ladder_level_names[a->level]);
    if (a->advice.keep_warm)
        buf_append_text(yaml, "  replicas: {min: 1, max: 1}\n");
}

/* What is known of the price: a start and an end, once, by the test of the level; the rest from a report. */
static void append_cost(const struct advise *a, struct buf *text)
{
    const struct isolate_survey *row = row_of(a, a->level);
    if (!row_usable(row) || row->probe_ms == 0) {
        buf_append_text(text, "not measured on this host: the level does not work here");
        return;
    }
    buf_format(text, "a start and end of an empty worker took %u ms here, just now; ", row->probe_ms);
    if (cli_measured(cli_flag_value(a->call, "measured"), (enum isolate_level)a->level, text) == 0)
        buf_append_text(text, "added latency, throughput and memory are not measured on this host: `bulkhead bench "
                              "isolation` does");
}

static void print_reasons(const struct advise *a, enum ladder_effect from, enum ladder_effect to)
{
    for (uint32_t i = 0; i < a->advice.n_rules; i++) {
        const struct ladder_rule *rule = a->advice.rules[i];
        /* what only the floor demands has no reason in the answers */
        if (rule->effect < from || rule->effect > to)
            continue;
        printf("  - ");
        cli_print_wrapped(rule->reason, 4);
    }
}

static void print_text(const struct advise *a)
{
    const char *advised = ladder_level_names[a->advice.level];
    _buf_ struct buf yaml, cost;
    buf_init(&yaml, 4 * KIB);
    buf_init(&cost, 4 * KIB);
    append_yaml(a, &yaml);
    append_cost(a, &cost);
    printf("Level: %s\n\nBecause\n", advised);
    if (a->advice.by_minimum)
        printf("  - the tenant demands at least this level (isolation.minimum)\n");
    print_reasons(a, LADDER_RAISE, LADDER_KEEP_WARM);
    printf("\nOn this host\n  ");
    if (a->available && a->level == a->advice.level) {
        cli_print_wrapped(row_of(a, a->level)->report.degraded ? row_of(a, a->level)->report.text : "it is available",
                          2);
    } else {
        printf("%s IS NOT AVAILABLE: ", advised);
        cli_print_wrapped(row_of(a, a->advice.level)->report.text, 2);
        if (a->available)
            printf("  %s is stronger and is available: the YAML below takes it\n", ladder_level_names[a->level]);
        else
            printf("  nothing stronger is available either; apply would refuse the model (see bulkhead doctor)\n");
    }
    printf("\nCost\n  ");
    cli_print_wrapped(buf_terminate(&cost), 2);
    printf("\nMind\n");
    print_reasons(a, LADDER_WARN, LADDER_WARN);
    printf("  - what the level contains and what not: docs/isolation-levels.md, bulkhead explain model\n\n");
    fputs(buf_terminate(&yaml), stdout); /* names were checked: nothing in it can steer the terminal */
}

static void append_reasons(const struct advise *a, bool warnings, struct buf *json)
{
    uint32_t n = 0;
    buf_format(json, ",\"%s\":[", warnings ? "warnings" : "reasons");
    if (!warnings && a->advice.by_minimum)
        buf_format(json, "%s\"the tenant demands at least this level (isolation.minimum)\"", n++ > 0 ? "," : "");
    for (uint32_t i = 0; i < a->advice.n_rules; i++) {
        if ((a->advice.rules[i]->effect == LADDER_WARN) != warnings)
            continue;
        buf_append_text(json, n++ > 0 ? "," : "");
        buf_append_json(json, str_from(a->advice.rules[i]->reason));
    }
    buf_append_char(json, ']');
}

static enum cli_exit print_value(const struct advise *a, enum cli_format format)
{
    const struct isolate_survey *advised = row_of(a, a->advice.level), *proposed = row_of(a, a->level);
    _buf_ struct buf json, part;
    buf_init(&json, 64 * KIB);
    buf_init(&part, 8 * KIB);
    buf_append_text(&json, "{\"answers\":{");
    for (int q = 0; q < LADDER_QUESTION_COUNT; q++)
        buf_format(&json, "%s\"%s\":\"%s\"", q > 0 ? "," : "", ladder_questions[q].name,
                   ladder_questions[q].answers[a->answers[q]]);
    buf_format(&json,
               "},\"minimum\":\"%s\",\"level\":\"%s\",\"available\":%s,\"text\":", ladder_level_names[a->minimum],
               ladder_level_names[a->advice.level], row_usable(advised) ? "true" : "false");
    buf_append_json(&json, str_from(advised->report.text));
    buf_format(&json, ",\"proposed\":\"%s\",\"works\":%s", ladder_level_names[a->level],
               a->available ? "true" : "false");
    append_reasons(a, false, &json);
    append_reasons(a, true, &json);
    append_cost(a, &part);
    buf_format(&json, ",\"cost\":{\"startMs\":%u,\"text\":", row_usable(proposed) ? proposed->probe_ms : 0);
    buf_append_json(&json, (struct str){part.data, part.size});
    buf_clear(&part);
    append_yaml(a, &part);
    buf_append_text(&json, "},\"yaml\":");
    buf_append_json(&json, (struct str){part.data, part.size});
    buf_append_char(&json, '}');
    yyjson_doc *doc = json.failed || part.failed ? NULL : yyjson_read(json.data, json.size, 0);
    enum cli_exit status = doc ? cli_print_value(yyjson_doc_get_root(doc), format) : cli_complain("out of memory");
    yyjson_doc_free(doc);
    return status;
}

enum cli_exit cli_advise(const struct cli_call *call)
{
    struct advise a = {.call = call};
    const char *model = cli_flag_value(call, "model");
    int format = cli_format(call);
    if (format < 0)
        return CLI_USAGE;
    if (model && !str_is_name(str_from(model)))
        return cli_complain("\"%s\" is not a model's name", model);
    enum cli_exit status = answers_find(&a);
    if (status == CLI_DONE)
        status = floor_find(&a);
    if (status != CLI_DONE)
        return status;
    isolate_survey(a.rows, cli_survey_progress, NULL);
    cli_survey_progress(NULL, ISOLATE_NONE);
    decide(&a);
    if (format == CLI_TABLE)
        print_text(&a);
    else
        status = print_value(&a, (enum cli_format)format);
    return status != CLI_DONE ? status : a.available ? CLI_DONE : CLI_REFUSED;
}
