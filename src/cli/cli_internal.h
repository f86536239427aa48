/* Inside of the command line; only cli*.c includes this. */
#ifndef BULKHEAD_CLI_CLI_INTERNAL_H
#define BULKHEAD_CLI_CLI_INTERNAL_H

#include "base/buf.h"
#include "base/error.h"
#include "cli/cli.h"
#include "isolate/isolate.h"
#include "resource/resource.h"
#include "wire/client.h"

#include <stdio.h>
#include <yyjson.h>

enum cli_exit { CLI_DONE = 0, CLI_REFUSED = 1, CLI_USAGE = 2 };

#define CLI_FLAGS_MAX        16u
#define CLI_ARGUMENTS_MAX    3u
#define CLI_ANSWER_BYTES_MAX (64 * MIB) /* of the admin API's longest answer */
#define CLI_TARGET_BYTES     1024u

struct cli_flag {
    const char *name;     /* without its dashes; NULL ends the list */
    char letter;          /* 0: none */
    const char *argument; /* what stands for the value in the help; NULL: a switch */
    bool required;
    const char *help;
};

struct cli_call;

struct cli_command {
    const char *name;      /* one or two words: "apply", "key create" */
    const char *arguments; /* as in the help: "KIND [NAME]" */
    uint32_t arguments_min, arguments_max;
    const char *summary;
    const struct cli_flag *flags; /* own flags, ended by a NULL name; beside the common ones when `admin` */
    bool admin;                   /* talks to the admin socket: takes --admin and --data */
    bool raw;                     /* its arguments are not parsed here (serve) */
    enum cli_exit (*run)(const struct cli_call *call);
    const char *details; /* further help; NULL */
};

struct cli_call {
    const struct cli_command *command;
    const struct cli_hooks *hooks;
    int argc; /* for raw commands: argv[0] is the command's name */
    char **argv;
    uint32_t n_arguments;
    const char *arguments[CLI_ARGUMENTS_MAX];
    uint32_t n_flags;
    struct {
        const struct cli_flag *flag;
        const char *value; /* "" for a switch */
    } flags[CLI_FLAGS_MAX];
};

/* --- cli.c --- */

/* Ends with a row whose name is NULL. */
extern const struct cli_command cli_commands[];

/* Value of a flag, or NULL when it was not given. */
const char *cli_flag_value(const struct cli_call *call, const char *name);
/* Prints "bulkhead: …" to stderr and returns CLI_REFUSED. */
enum cli_exit cli_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with a hint at --help; returns CLI_USAGE. */
enum cli_exit cli_usage(const struct cli_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Writes a text of unknown origin, UTF-8: control characters, C1's too, become '?', so that no name can steer the
 * terminal. */
void cli_print(FILE *stream, struct str text);

/* --- cli_help.c --- */

void cli_help_all(FILE *stream);
void cli_help_command(FILE *stream, const struct cli_command *command);
/* Flags of every command that talks to the admin socket. */
extern const struct cli_flag cli_flags_admin[];

/* --- cli_parse.c --- */

/* Finds the command and reads its arguments. Negative: *ret_exit says how to end (help was printed, or usage). */
must_check int cli_parse(const struct cli_hooks *hooks, int argc, char **argv, struct cli_call *ret_call,
                         enum cli_exit *ret_exit);

/* --- cli_admin.c --- */

struct cli_answer {
    int status;
    struct buf body;
    yyjson_doc *json; /* NULL when the body is not JSON */
};
void cli_answer_done(struct cli_answer *answer);
#define _answer_ _cleanup_(cli_answer_done)

/* One request to the admin socket. Anything but a 2xx answer is complained about (status is set then) and returned as
 * CLI_REFUSED. */
enum cli_exit cli_admin(const struct cli_call *call, const char *method, const char *target, struct str body,
                        struct cli_answer *ret_answer);
/* The same with a file as the body, and without complaining about what the server says: ret_answer tells. */
enum cli_exit cli_admin_send(const struct cli_call *call, const struct wire_client_request *request,
                             struct cli_answer *ret_answer);
/* The server's own words for a failure, in `text`. */
void cli_answer_error(const struct cli_answer *answer, struct buf *text);
/* Says so when the answer of a change carries "taken": false. */
void cli_print_pending(const struct cli_answer *answer);

/* --- cli_file.c --- */

/* Reads FILE, or stdin for "-"; at most `max` bytes (into buf, initialised by the callee). Complains. */
enum cli_exit cli_read_file(const char *path, size_t max, struct buf *ret_content);

/* --- cli_output.c --- */

enum cli_format { CLI_TABLE = 0, CLI_JSON, CLI_YAML, CLI_FORMAT_COUNT };
/* Of -o; negative when it is none (complained about). */
int cli_format(const struct cli_call *call);
/* The same of another flag, where --output is something else. */
int cli_format_of(const struct cli_call *call, const char *flag);
/* A value as JSON (indented) or YAML. */
enum cli_exit cli_print_value(yyjson_val *value, enum cli_format format);
/* --- cli_table.c --- */

void cli_print_table(enum resource_kind kind, yyjson_val *items);
/* Text in lines of at most CLI_LINE_COLUMNS, broken at spaces; all but the first begin at `column`, where the first one
 * already stands. */
#define CLI_LINE_COLUMNS 100u
void cli_print_wrapped(const char *text, size_t column);

/* --- cli_doctor.c --- */

/* Says on a terminal which level is being tested; ISOLATE_NONE clears the line. */
void cli_survey_progress(void *ctx, enum isolate_level level);

/* --- cli_measured.c --- */

/* What a report of `bulkhead bench isolation` says of a level, as words for people: appended to `text`. 1: it was; 0:
 * there is nothing to say, because there is no such file; -1: the file is no use, and `text` says why. `path` may be
 * NULL: the report in the current folder, if there is one. */
int cli_measured(const char *path, enum isolate_level level, struct buf *text);

/* --- cli_folder.c --- */

/* Packs the folder (base/bundle.h) into a file without a name. On failure `why` names the file and says what is wrong
 * with it: a link, a device, unreadable, too many, too long, too large. */
#define CLI_FOLDER_WHY_BYTES 512
must_check int cli_folder_pack(int folder, int *ret_fd, uint64_t *ret_bytes, char why[static CLI_FOLDER_WHY_BYTES]);

/* --- the commands --- */

enum cli_exit cli_advise(const struct cli_call *call);
enum cli_exit cli_bench_isolation(const struct cli_call *call);
enum cli_exit cli_apply(const struct cli_call *call);
enum cli_exit cli_get(const struct cli_call *call);
enum cli_exit cli_delete(const struct cli_call *call);
enum cli_exit cli_key_create(const struct cli_call *call);
enum cli_exit cli_key_list(const struct cli_call *call);
enum cli_exit cli_key_revoke(const struct cli_call *call);
enum cli_exit cli_status(const struct cli_call *call);
enum cli_exit cli_doctor(const struct cli_call *call);
enum cli_exit cli_infer(const struct cli_call *call);
enum cli_exit cli_explain(const struct cli_call *call);
enum cli_exit cli_top(const struct cli_call *call);
enum cli_exit cli_version(const struct cli_call *call);
enum cli_exit cli_serve(const struct cli_call *call);

#endif
