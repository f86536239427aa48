/* Printing: JSON and YAML. */
#include "cli/yaml.h"
#include "cli_internal.h"

static const char *const format_names[CLI_FORMAT_COUNT] = {"table", "json", "yaml"};

int cli_format(const struct cli_call *call)
{
    return cli_format_of(call, "output");
}

int cli_format_of(const struct cli_call *call, const char *flag)
{
    const char *name = cli_flag_value(call, flag);
    for (int i = 0; name && i < CLI_FORMAT_COUNT; i++)
        if (strcmp(name, format_names[i]) == 0)
            return i;
    if (!name)
        return CLI_TABLE;
    (void)cli_usage(call, "-o takes table, json or yaml, not \"%s\"", name); /* the caller returns CLI_USAGE */
    return -1;
}

enum cli_exit cli_print_value(yyjson_val *value, enum cli_format format)
{
    if (format == CLI_YAML) {
        _buf_ struct buf yaml;
        buf_init(&yaml, 2 * CLI_ANSWER_BYTES_MAX);
        cli_yaml_write(value, &yaml);
        if (yaml.failed)
            return cli_complain("the answer is too large or too deep to print as YAML");
        fwrite(yaml.data, 1, yaml.size, stdout); /* cli_main looks at ferror(stdout) */
        return CLI_DONE;
    }
    _free_ char *text = yyjson_val_write(value, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL);
    if (!text)
        return cli_complain("out of memory");
    printf("%s\n", text);
    return CLI_DONE;
}
