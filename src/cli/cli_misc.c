/* status, infer and version. */
#include "cli_internal.h"

enum cli_exit cli_status(const struct cli_call *call)
{
    int format = cli_format(call);
    if (format < 0)
        return CLI_USAGE;
    _answer_ struct cli_answer answer = {0};
    enum cli_exit status = cli_admin(call, "GET", "/v1alpha1/status", STR(""), &answer);
    if (status != CLI_DONE)
        return status;
    if (!answer.json)
        return cli_complain("the server's answer is not JSON");
    return cli_print_value(yyjson_doc_get_root(answer.json), format == CLI_JSON ? CLI_JSON : CLI_YAML);
}

enum cli_exit cli_infer(const struct cli_call *call)
{
    const char *tenant = cli_flag_value(call, "tenant"), *model = call->arguments[0];
    if (!str_is_name(str_from(tenant)) || !str_is_name(str_from(model)))
        return cli_complain("a tenant and a model are named by lower-case DNS-1123 tokens");
    _buf_ struct buf body;
    enum cli_exit status = cli_read_file(cli_flag_value(call, "input"), LIMIT_BODY_BYTES, &body);
    if (status != CLI_DONE)
        return status;
    char target[CLI_TARGET_BYTES];
    (void)snprintf(target, sizeof target, "/v1alpha1/infer?tenant=%s&model=%s", tenant, model); /* names are bounded */
    _answer_ struct cli_answer answer = {0};
    status = cli_admin(call, "POST", target, (struct str){body.data, body.size}, &answer);
    if (status != CLI_DONE)
        return status;
    fwrite(answer.body.data, 1, answer.body.size, stdout); /* cli_main looks at ferror(stdout) */
    if (answer.body.size > 0 && answer.body.data[answer.body.size - 1] != '\n')
        putchar('\n');
    return CLI_DONE;
}

enum cli_exit cli_version(const struct cli_call *call)
{
    (void)call;
    printf("bulkhead %s\n", BULKHEAD_VERSION);
    return CLI_DONE;
}
