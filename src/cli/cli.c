/* The table of commands, and the entry. */
#include "cli_internal.h"

#include <errno.h>
#include <stdarg.h>

#define TENANT_OF                                      \
    {                                                  \
        "tenant", 0, "T", false, "of this tenant only" \
    }
#define OUTPUT                                                     \
    {                                                              \
        "output", 'o', "table|json|yaml", false, "how to print it" \
    }
#define END          \
    {                \
        .name = NULL \
    }

static const struct cli_flag flags_serve[] = {
    {"data", 0, "DIR", true, "the folder of everything the server keeps; made when it does not exist"},
    {"listen", 0, "ADDR:PORT", false, "where tenants' requests come in (default: 127.0.0.1:8080)"},
    {"config", 0, "FILE", false, "a Server resource in YAML (see: bulkhead explain Server)"},
    {"allow-unlimited", 0, NULL, false,
     "start models even where this host cannot limit their memory, CPU and processes; status says so"},
    {"engines", 0, "DIR", false, "where the engines' libraries are (default: engines/ beside the program)"},
    {"scheduler", 0, "fair|fifo", false,
     "fair (default): by class, tenants' and models' weights, deadline; fifo: first come, first served, to compare with"},
    END,
};
static const struct cli_flag flags_top[] = {
    {"once", 0, NULL, false, "print one table after one interval, for scripts"},
    {"interval", 0, "SECONDS", false, "between two looks, 1 to 3600 (default: 2)"},
    END,
};
static const struct cli_flag flags_apply[] = {
    {"file", 'f', "FILE|-", true, "YAML, many documents; - reads standard input"},
    END,
};
static const struct cli_flag flags_get[] = {TENANT_OF, OUTPUT, END};
static const struct cli_flag flags_delete[] = {{"tenant", 0, "T", false, "whose model it is"}, END};
static const struct cli_flag flags_key_create[] = {
    {"tenant", 0, "T", true, "who may call with it"},
    {"name", 0, "N", false, "a name for people"},
    END,
};
static const struct cli_flag flags_status[] = {{"output", 'o', "yaml|json", false, "how to print it (default: yaml)"},
                                               END};
static const struct cli_flag flags_doctor[] = {OUTPUT, END};
static const struct cli_flag flags_advise[] = {
    {"file", 'f', "FILE|-", false, "YAML with the answers, such as `critical: patient`; flags go before it"},
    {"critical", 0, "no|money|patient", false, "what a wrong or missing answer costs"},
    {"regulated", 0, "no|regulated|locked", false, "must the software around it be what was examined"},
    {"neighbours", 0, "none|trusted|untrusted", false, "who else's models run on this host"},
    {"latency", 0, "relaxed|normal|tight", false, "tens of ms, some ms, or less than 1 ms may be added"},
    {"burst", 0, "no|yes", false, "do requests come in bursts after times of quiet"},
    {"legacy", 0, "no|libraries|kernel", false, "does it need an operating system other than the host's"},
    {"minimum", 0, "LEVEL", false, "the least that its tenant demands"},
    {"tenant", 0, "T", false, "whose model it is; the server is asked what this tenant demands"},
    {"model", 0, "NAME", false, "its name, for the YAML"},
    {"measured", 0, "FILE", false,
     "a report of `bulkhead bench isolation` made here (default: bulkhead-isolation.json in the current folder)"},
    OUTPUT,
    END,
};
static const struct cli_flag flags_bench[] = {
    {"level", 0, "L[,L...]", false, "these levels only (default: all that are available)"},
    {"runs", 0, "N", false, "starts of each kind for each level (default: 20)"},
    {"seconds", 0, "S", false, "of each steady load (default: 5)"},
    {"output", 0, "DIR", false, "where the report is written (default: the current folder)"},
    {"format", 'o', "table|json|yaml", false, "how to print it"},
    END,
};
static const struct cli_flag flags_explain[] = {
    {"tenant", 0, "T", false, "whose model it is"},
    OUTPUT,
    END,
};
static const struct cli_flag flags_infer[] = {
    {"tenant", 0, "T", true, "as whom"},
    {"input", 0, "FILE.json", true, "the request's body: Open Inference Protocol JSON; - reads standard input"},
    END,
};

const struct cli_command cli_commands[] = {
    {.name = "serve",
     .arguments = "",
     .summary = "Run the server until SIGTERM.",
     .flags = flags_serve,
     .raw = true,
     .run = cli_serve,
     .details = "Starts every role of the server. JSON log lines go to stderr. SIGTERM drains, then ends with 0."},
    {.name = "apply",
     .arguments = "",
     .summary = "Create or change what a YAML file says, all or nothing.",
     .flags = flags_apply,
     .admin = true,
     .run = cli_apply,
     .details = "A Model's spec.source is a file, relative to the folder of FILE (for -: the current one). It is\n"
                "uploaded first, and kept under its digest; another content makes a new version."},
    {.name = "get",
     .arguments = "KIND [NAME]",
     .arguments_min = 1,
     .arguments_max = 2,
     .summary = "Show resources: tenants, models, grants, adapters, versions, replicas, keys, devices.",
     .flags = flags_get,
     .admin = true,
     .run = cli_get,
     .details = "`bulkhead get models -o yaml` is again what apply takes."},
    {.name = "delete",
     .arguments = "KIND NAME",
     .arguments_min = 2,
     .arguments_max = 2,
     .summary = "Delete a tenant without models, or a model.",
     .flags = flags_delete,
     .admin = true,
     .run = cli_delete},
    {.name = "key create",
     .arguments = "",
     .summary = "Make an API key; it is shown this once.",
     .flags = flags_key_create,
     .admin = true,
     .run = cli_key_create,
     .details = "The key is the last word of the output. The server keeps only its hash."},
    {.name = "key list",
     .arguments = "",
     .summary = "Show the keys there are, without their secrets.",
     .flags = flags_get,
     .admin = true,
     .run = cli_key_list},
    {.name = "key revoke",
     .arguments = "ID",
     .arguments_min = 1,
     .arguments_max = 1,
     .summary = "End a key; its open connections end too.",
     .admin = true,
     .run = cli_key_revoke},
    {.name = "status",
     .arguments = "",
     .summary = "Show what runs, and behind which wall.",
     .flags = flags_status,
     .admin = true,
     .run = cli_status},
    {.name = "top",
     .arguments = "",
     .summary = "Watch who gets how much of the devices, who waits, and which limits are hit.",
     .flags = flags_top,
     .admin = true,
     .run = cli_top,
     .details =
         "ASKED is a tenant's weight among those that want a device; GOT its part of the time that leases took; both of\n"
         "the last interval, as are REQ/S, P50 and P99 of all answers, refusals too (the end of a bucket, so up to twice the\n"
         "truth), and LIMITS HIT: requests refused by rate, queue or quota (429), unavailable (503), and clients that left.\n"
         "^C ends it."},
    {.name = "doctor",
     .arguments = "",
     .summary = "Test which isolation levels this host can provide, and say why not.",
     .flags = flags_doctor,
     .run = cli_doctor,
     .details = "Needs no server and disturbs none. Tests by doing, so it takes some seconds; as a plain user it can\n"
                "test less than as root. Ends with 0 when level process, the default of a model, works with limits."},
    {.name = "advise",
     .arguments = "",
     .summary = "Say which isolation level a model needs, why, and what to apply.",
     .flags = flags_advise,
     .admin = true,
     .run = cli_advise,
     .details =
         "Asks what is not given, when there is a terminal. The rules stand in docs/advise.md. Needs no server but\n"
         "for --tenant; tests the levels as `bulkhead doctor` does. Ends with 1 when nothing strong enough works here."},
    {.name = "bench isolation",
     .arguments = "",
     .summary = "Measure what each isolation level costs on this host.",
     .flags = flags_bench,
     .run = cli_bench_isolation,
     .details =
         "Starts a server of its own on a free port of 127.0.0.1 and measures every available level through its HTTP\n"
         "surface: cold and warm start, added latency, throughput, idle memory, and what a flooding neighbour does to\n"
         "another tenant's p99. Takes about a minute a level; ^C ends it without traces. Writes\n"
         "bulkhead-isolation.json and bulkhead-isolation.html (one file, plots inside). Needs root. Other work on the\n"
         "host falsifies it: the load average stands in the report."},
    {.name = "infer",
     .arguments = "MODEL",
     .arguments_min = 1,
     .arguments_max = 1,
     .summary = "Send one inference request to a model, as its tenant.",
     .flags = flags_infer,
     .admin = true,
     .run = cli_infer},
    {.name = "explain",
     .arguments = "KIND[.field] | model NAME",
     .arguments_min = 1,
     .arguments_max = 2,
     .summary = "Tell what a field of a resource means, or what contains a model.",
     .flags = flags_explain,
     .admin = true,
     .run = cli_explain,
     .details =
         "bulkhead explain Model.spec.resources        what the field means; needs no server\n"
         "bulkhead explain model digits --tenant acme  what the wall around this model contains, limits or does\n"
         "                                             not contain, and by what, with the facts of each replica"},
    {.name = "version", .arguments = "", .summary = "Print the version.", .run = cli_version},
    {.name = NULL},
};

const char *cli_flag_value(const struct cli_call *call, const char *name)
{
    for (uint32_t i = 0; i < call->n_flags; i++)
        if (strcmp(call->flags[i].flag->name, name) == 0)
            return call->flags[i].value;
    return NULL;
}

void cli_print(FILE *stream, struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        bool c1 = c == 0xC2 && i + 1 < text.size && (unsigned char)text.data[i + 1] < 0xA0; /* U+009B is ESC [ in one */
        fputc(c < 0x20 || c == 0x7F || c1 ? '?' : c, stream);
        i += c1;
    }
}

static void complain(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
static void complain(const char *format, va_list args)
{
    char text[2 * ERROR_TEXT_BYTES_MAX];
    (void)vsnprintf(text, sizeof text, format, args); /* a longer text is cut */
    fputs("bulkhead: ", stderr);
    cli_print(stderr, str_from(text));
    fputc('\n', stderr);
}

enum cli_exit cli_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(format, args);
    va_end(args);
    return CLI_REFUSED;
}

enum cli_exit cli_usage(const struct cli_call *call, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(format, args);
    va_end(args);
    fprintf(stderr, "see: bulkhead %s%s--help\n", call ? call->command->name : "", call ? " " : "");
    return CLI_USAGE;
}

enum cli_exit cli_serve(const struct cli_call *call)
{
    return (enum cli_exit)call->hooks->serve(call->argc, call->argv);
}

int cli_main(const struct cli_hooks *hooks, int argc, char **argv)
{
    struct cli_call call;
    enum cli_exit status = CLI_USAGE;
    if (cli_parse(hooks, argc, argv, &call, &status) == 0)
        status = call.command->run(&call);
    /* a full disk or a closed pipe behind stdout is a failure, not a success without output */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "bulkhead: cannot write the output: %s\n", strerrordesc_np(errno));
        return (int)(status == CLI_DONE ? CLI_REFUSED : status);
    }
    return (int)status;
}
