/* --help, from the table of commands. */
#include "cli_internal.h"

const struct cli_flag cli_flags_admin[] = {
    {"admin", 0, "PATH", false,
     "the server's admin socket (also: BULKHEAD_ADMIN; default: /var/lib/bulkhead/admin.sock, or "
     "demo-data/admin.sock here where only that exists)"},
    {"data", 0, "DIR", false, "the server's data folder: short for --admin DIR/admin.sock"},
    {.name = NULL},
};

void cli_help_all(FILE *stream)
{
    fputs("Bulkhead serves many tenants' models on shared hardware, each behind the wall it needs.\n\n"
          "usage: bulkhead COMMAND [ARGUMENTS] [FLAGS]\n\n",
          stream);
    for (const struct cli_command *command = cli_commands; command->name; command++) {
        char head[64];
        (void)snprintf(head, sizeof head, "%s %s", command->name, command->arguments); /* cut, if ever too long */
        fprintf(stream, "  %-22s %s\n", head, command->summary);
    }
    fputs("\nbulkhead COMMAND --help tells a command's flags. Exit status: 0 done, 1 refused or failed, 2 usage.\n",
          stream);
}

/* Breaks `text` at spaces so that no line is longer than 100 columns. */
static void print_wrapped(FILE *stream, const char *text, int indent)
{
    int room = 100 - indent;
    while ((int)strlen(text) > room) {
        int cut = room;
        while (cut > 0 && text[cut] != ' ')
            cut--;
        if (cut == 0)
            break;
        fprintf(stream, "%.*s\n%*s", cut, text, indent, "");
        text += cut + 1;
    }
    fprintf(stream, "%s\n", text);
}

static void help_flags(FILE *stream, const struct cli_flag *flags)
{
    for (; flags && flags->name; flags++) {
        char head[64];
        if (flags->letter)
            (void)snprintf(head, sizeof head, "-%c, --%s", flags->letter, flags->name); /* cut, if ever too long */
        else
            (void)snprintf(head, sizeof head, "--%s", flags->name); /* likewise */
        fprintf(stream, "  %s %-*s  ", head, 28 - (int)strlen(head), flags->argument ? flags->argument : "");
        print_wrapped(stream, flags->help, 33);
    }
}

static void usage_flags(FILE *stream, const struct cli_flag *flags)
{
    for (; flags && flags->name; flags++)
        fprintf(stream, " %s%s%s%s%s%s", flags->required ? "" : "[", flags->letter ? "-" : "--",
                flags->letter ? (char[]){flags->letter, '\0'} : flags->name, flags->argument ? " " : "",
                flags->argument ? flags->argument : "", flags->required ? "" : "]");
}

void cli_help_command(FILE *stream, const struct cli_command *command)
{
    fprintf(stream, "%s\n\nusage: bulkhead %s%s%s", command->summary, command->name, command->arguments[0] ? " " : "",
            command->arguments);
    usage_flags(stream, command->flags);
    fputs("\n", stream);
    if (command->details)
        fprintf(stream, "\n%s\n", command->details);
    if ((command->flags && command->flags->name) || command->admin)
        fputs("\n", stream);
    help_flags(stream, command->flags);
    if (command->admin)
        help_flags(stream, cli_flags_admin);
}
