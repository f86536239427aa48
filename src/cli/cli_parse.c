/* Command words, flags and arguments. A flag may stand anywhere; "--" ends flags; --flag=value and -fvalue work. */
#include "cli_internal.h"

/* How many words of argv the name of `command` takes; 0 when it is another. */
static int match_command(const struct cli_command *command, int argc, char **argv)
{
    struct str rest = str_from(command->name);
    int words = 0;
    while (rest.size > 0) {
        const char *space = memchr(rest.data, ' ', rest.size);
        struct str word = {rest.data, space ? (size_t)(space - rest.data) : rest.size};
        if (words >= argc || strncmp(argv[words], word.data, word.size) != 0 || argv[words][word.size] != '\0')
            return 0;
        words++;
        rest = str_skip(rest, word.size + (space ? 1 : 0));
    }
    return words;
}

static const struct cli_command *find_command(int argc, char **argv, int *ret_words)
{
    for (const struct cli_command *command = cli_commands; command->name; command++) {
        *ret_words = match_command(command, argc, argv);
        if (*ret_words > 0)
            return command;
    }
    return NULL;
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

/* The flag that `argument` names; *ret_value is what stands behind its '=' or letter, or NULL. */
static const struct cli_flag *find_in(const struct cli_flag *flags, const char *argument, const char **ret_value)
{
    for (; flags && flags->name; flags++) {
        size_t length = strlen(flags->name);
        if (strncmp(argument, "--", 2) == 0 && strncmp(argument + 2, flags->name, length) == 0 &&
            (argument[2 + length] == '\0' || argument[2 + length] == '=')) {
            *ret_value = argument[2 + length] == '=' ? argument + 3 + length : NULL;
            return flags;
        }
        if (flags->letter && argument[0] == '-' && argument[1] == flags->letter) {
            *ret_value = argument[2] ? argument + 2 : NULL;
            return flags;
        }
    }
    return NULL;
}

static int parse_flag(struct cli_call *call, int *i, enum cli_exit *ret_exit)
{
    const char *argument = call->argv[*i], *value = NULL;
    const struct cli_flag *flag = find_in(call->command->flags, argument, &value);
    if (!flag && call->command->admin)
        flag = find_in(cli_flags_admin, argument, &value);
    if (!flag) {
        *ret_exit = cli_usage(call, "%s does not take %s", call->command->name, argument);
        return -1;
    }
    if (flag->argument && !value && *i + 1 < call->argc)
        value = call->argv[++*i];
    if (flag->argument ? !value : value != NULL) {
        *ret_exit = cli_usage(call, "--%s %s", flag->name, flag->argument ? "needs a value" : "takes no value");
        return -1;
    }
    if (cli_flag_value(call, flag->name)) {
        *ret_exit = cli_usage(call, "--%s is given twice", flag->name);
        return -1;
    }
    call->flags[call->n_flags].flag = flag;
    call->flags[call->n_flags++].value = value ? value : "";
    return 0;
}

static int check_complete(const struct cli_call *call, enum cli_exit *ret_exit)
{
    const struct cli_command *command = call->command;
    if (call->n_arguments < command->arguments_min) {
        *ret_exit = cli_usage(call, "%s needs %s", command->name, command->arguments);
        return -1;
    }
    for (const struct cli_flag *flag = command->flags; flag && flag->name; flag++) {
        if (!flag->required || cli_flag_value(call, flag->name))
            continue;
        *ret_exit = cli_usage(call, "%s needs --%s %s", command->name, flag->name, flag->argument);
        return -1;
    }
    return 0;
}

static int parse_arguments(struct cli_call *call, enum cli_exit *ret_exit)
{
    bool flags_ended = false;
    for (int i = 0; i < call->argc; i++) {
        char *argument = call->argv[i];
        if (!flags_ended && strcmp(argument, "--") == 0) {
            flags_ended = true;
        } else if (!flags_ended && argument[0] == '-' && argument[1] != '\0') {
            if (parse_flag(call, &i, ret_exit) < 0)
                return -1;
        } else if (call->n_arguments == call->command->arguments_max) {
            *ret_exit = cli_usage(call, "%s does not take \"%s\"", call->command->name, argument);
            return -1;
        } else {
            call->arguments[call->n_arguments++] = argument;
        }
    }
    return check_complete(call, ret_exit);
}

/* `bulkhead key` alone, or a wrong second word: the commands that start with the first. */
static int unknown_command(const char *word, enum cli_exit *ret_exit)
{
    bool group = false;
    size_t length = strlen(word);
    for (const struct cli_command *command = cli_commands; command->name; command++)
        if (strncmp(command->name, word, length) == 0 && command->name[length] == ' ') {
            fprintf(stderr, "%s bulkhead %s%s%s\n", group ? "      " : "usage:", command->name,
                    command->arguments[0] ? " " : "", command->arguments);
            group = true;
        }
    *ret_exit = CLI_USAGE;
    if (!group)
        (void)cli_usage(NULL, "there is no command \"%s\"", word); /* its result stands above */
    return -1;
}

int cli_parse(const struct cli_hooks *hooks, int argc, char **argv, struct cli_call *ret_call, enum cli_exit *ret_exit)
{
    if (argc < 2) {
        cli_help_all(stderr);
        *ret_exit = CLI_USAGE;
        return -1;
    }
    if (is_help(argv[1]) || (strcmp(argv[1], "help") == 0 && argc == 2)) {
        cli_help_all(stdout);
        *ret_exit = CLI_DONE;
        return -1;
    }
    bool help = strcmp(argv[1], "help") == 0;
    int first = help ? 2 : 1, words = 0;
    if (strcmp(argv[first], "--version") == 0)
        argv[first] += 2; /* "version" */
    *ret_call = (struct cli_call){.hooks = hooks, .command = find_command(argc - first, argv + first, &words)};
    if (!ret_call->command)
        return unknown_command(argv[first], ret_exit);
    for (int i = first + words; i < argc && !help && strcmp(argv[i], "--") != 0; i++)
        help = is_help(argv[i]);
    if (help) {
        cli_help_command(stdout, ret_call->command);
        *ret_exit = CLI_DONE;
        return -1;
    }
    int skip = ret_call->command->raw ? first : first + words;
    ret_call->argc = argc - skip;
    ret_call->argv = argv + skip;
    return ret_call->command->raw ? 0 : parse_arguments(ret_call, ret_exit);
}
