/* doctor: tests what this host can isolate, without a server. */
#include "cli_internal.h"

#include "isolate/isolate_host.h"
#include "isolate/isolate_survey.h"

#include <unistd.h>

#define STATE_COLUMN 12
#define NAME_COLUMN  16

void cli_survey_progress(void *ctx, enum isolate_level level)
{
    (void)ctx;
    if (!isatty(STDERR_FILENO))
        return;
    if (level == ISOLATE_NONE)
        fprintf(stderr, "\r\033[K");
    else
        fprintf(stderr, "\r\033[Ktesting level %s ...", isolate_level_names[level]);
}

static const char *state_of(const struct isolate_survey *row)
{
    return !row->report.available ? "unavailable" : row->report.degraded ? "degraded" : "available";
}

static const char *runtime_text(const struct isolate_survey *rows, int runtime)
{
    const struct isolate_report *report = &rows[ISOLATE_CONTAINER - 1].report;
    return report->runtimes[runtime].text[0] ? report->runtimes[runtime].text : report->text;
}

static const char *runtime_state_of(const struct isolate_runtime_report *runtime)
{
    return runtime->state == ISOLATE_RUNTIME_WORKS ? "available" : "unavailable";
}

/* A default model starts here without a word more: with its limits. */
static bool usable(const struct isolate_survey *rows)
{
    const struct isolate_report *report = &rows[ISOLATE_PROCESS - 1].report;
    return report->available && report->limits;
}

static void append_json(struct buf *json, const struct isolate_fact *facts, size_t n_facts,
                        const struct isolate_survey *rows)
{
    buf_format(
        json, "{\"version\":\"" BULKHEAD_VERSION "\",\"root\":%s,\"default\":\"%s\",\"defaultWorks\":%s,\"levels\":[",
        geteuid() == 0 ? "true" : "false", isolate_level_names[ISOLATE_PROCESS], usable(rows) ? "true" : "false");
    for (size_t i = 0; i < ISOLATE_SURVEY_ROWS; i++) {
        buf_format(json, "%s{\"name\":\"%s\",\"state\":\"%s\",\"limits\":%s,\"testMs\":%u,\"text\":", i > 0 ? "," : "",
                   isolate_level_names[rows[i].level], state_of(&rows[i]), rows[i].report.limits ? "true" : "false",
                   rows[i].probe_ms);
        buf_append_json(json, str_from(rows[i].report.text));
        buf_append_char(json, '}');
    }
    const struct isolate_runtime_report *runtimes = rows[ISOLATE_CONTAINER - 1].report.runtimes;
    buf_append_text(json, "],\"runtimes\":[");
    for (int i = ISOLATE_RUNTIME_ANY + 1; i < ISOLATE_RUNTIME_COUNT; i++) {
        buf_format(json, "%s{\"name\":\"%s\",\"state\":\"%s\",\"text\":", i > ISOLATE_RUNTIME_ANY + 1 ? "," : "",
                   isolate_runtime_names[i], runtime_state_of(&runtimes[i]));
        buf_append_json(json, str_from(runtime_text(rows, i)));
        buf_append_char(json, '}');
    }
    buf_append_text(json, "],\"host\":[");
    for (size_t i = 0; i < n_facts; i++) {
        buf_format(json, "%s{\"name\":\"%s\",\"good\":%s,\"text\":", i > 0 ? "," : "", facts[i].name,
                   facts[i].good ? "true" : "false");
        buf_append_json(json, str_from(facts[i].text));
        buf_append_char(json, '}');
    }
    buf_append_text(json, "]}");
}

static void print_tables(const struct isolate_fact *facts, size_t n_facts, const struct isolate_survey *rows)
{
    printf("%-*s%-*s%s\n", STATE_COLUMN, "LEVEL", STATE_COLUMN + 1, "STATE", "WHAT WAS FOUND");
    for (size_t i = 0; i < ISOLATE_SURVEY_ROWS; i++) {
        printf("%-*s%-*s", STATE_COLUMN, isolate_level_names[rows[i].level], STATE_COLUMN + 1, state_of(&rows[i]));
        cli_print_wrapped(rows[i].report.text, 2 * STATE_COLUMN + 1);
    }
    const struct isolate_runtime_report *runtimes = rows[ISOLATE_CONTAINER - 1].report.runtimes;
    printf("\n%-*s%-*s%s\n", STATE_COLUMN, "RUNTIME", STATE_COLUMN + 1, "STATE", "OF LEVEL CONTAINER");
    for (int i = ISOLATE_RUNTIME_ANY + 1; i < ISOLATE_RUNTIME_COUNT; i++) {
        printf("%-*s%-*s", STATE_COLUMN, isolate_runtime_names[i], STATE_COLUMN + 1, runtime_state_of(&runtimes[i]));
        cli_print_wrapped(runtime_text(rows, i), 2 * STATE_COLUMN + 1);
    }
    printf("\n%-*s   %s\n", NAME_COLUMN, "HOST", "WHAT WAS FOUND");
    for (size_t i = 0; i < n_facts; i++) {
        printf("%-*s %c ", NAME_COLUMN, facts[i].name, facts[i].good ? ' ' : '!');
        cli_print_wrapped(facts[i].text, NAME_COLUMN + 3);
    }
    putchar('\n');
    if (usable(rows))
        printf("Models run here at level process, the default.\n");
    else if (rows[ISOLATE_PROCESS - 1].report.available)
        printf("Models of level process, the default, are refused here, because their limits cannot be set; serve\n"
               "--allow-unlimited runs them without.\n");
    else
        printf("Models of level process, the default, cannot run here.\n");
}

/* Found out with level process, by doing. */
static void cpusets_fact(const struct isolate_survey *rows, struct isolate_fact *f)
{
    const struct isolate_report *report = &rows[ISOLATE_PROCESS - 1].report;
    *f = (struct isolate_fact){.name = "cpusets", .good = report->cpusets};
    (void)snprintf(f->text, sizeof f->text, "%s", /* cut is fine: for people */
                   report->cpusets           ? "hold a worker on processors of its own (spec.resources.cpuset)"
                   : report->cpusets_text[0] ? report->cpusets_text
                                             : "not tested: level process is not available");
}

enum cli_exit cli_doctor(const struct cli_call *call)
{
    int format = cli_format(call);
    if (format < 0)
        return CLI_USAGE;
    struct isolate_fact facts[ISOLATE_FACTS_MAX];
    struct isolate_survey rows[ISOLATE_SURVEY_ROWS];
    size_t n_facts = isolate_host_facts(facts);
    isolate_survey(rows, cli_survey_progress, NULL);
    cli_survey_progress(NULL, ISOLATE_NONE);
    if (n_facts < ISOLATE_FACTS_MAX)
        cpusets_fact(rows, &facts[n_facts++]);
    enum cli_exit status = usable(rows) ? CLI_DONE : CLI_REFUSED;
    if (format == CLI_TABLE) {
        print_tables(facts, n_facts, rows);
        return status;
    }
    _buf_ struct buf json;
    buf_init(&json, 256 * KIB);
    append_json(&json, facts, n_facts, rows);
    yyjson_doc *doc = json.failed ? NULL : yyjson_read(json.data, json.size, 0);
    enum cli_exit printed =
        doc ? cli_print_value(yyjson_doc_get_root(doc), (enum cli_format)format) : cli_complain("out of memory");
    yyjson_doc_free(doc);
    return printed != CLI_DONE ? printed : status;
}
