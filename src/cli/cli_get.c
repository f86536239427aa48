/* get, delete and the keys. */
#include "cli_internal.h"

/* A kind as the user wrote it; RESOURCE_NONE was complained about and is a matter of usage. */
static enum resource_kind kind_of(const struct cli_call *call, const char *word)
{
    enum resource_kind kind = resource_kind_from_name(str_from(word));
    if (kind == RESOURCE_NONE)
        (void)cli_usage(
            call,
            "there is no kind \"%s\"; there are tenants, models, grants, adapters, versions, replicas, keys and devices",
            word);
    if (kind == RESOURCE_SERVER) {
        (void)cli_usage(call, "the Server resource is the file of serve --config; see bulkhead status");
        kind = RESOURCE_NONE;
    }
    return kind; /* the caller returns CLI_USAGE */
}

/* Characters that need no encoding in an address; every name and id is made of them. */
static bool is_token(const char *text)
{
    return text[0] && strlen(text) <= 2 * LIMIT_NAME_BYTES &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._") == strlen(text);
}

/* /v1alpha1/{plural}[/{name}][?tenant=…] */
static enum cli_exit target_of(const char *plural, const char *name, const char *tenant,
                               char ret_target[static CLI_TARGET_BYTES])
{
    if (name && !is_token(name))
        return cli_complain("\"%s\" is not a name", name);
    if (tenant && !str_is_name(str_from(tenant)))
        return cli_complain("\"%s\" is not a tenant's name", tenant);
    int length = snprintf(ret_target, CLI_TARGET_BYTES, "/v1alpha1/%s%s%s%s%s", plural, name ? "/" : "",
                          name ? name : "", tenant ? "?tenant=" : "", tenant ? tenant : "");
    return length > 0 && (size_t)length < CLI_TARGET_BYTES ? CLI_DONE : cli_complain("a name is too long");
}

static enum cli_exit print_items(enum resource_kind kind, const char *name, yyjson_val *root, enum cli_format format)
{
    yyjson_val *items = yyjson_obj_get(root, "items");
    if (!yyjson_is_arr(items))
        return cli_complain("the server's answer has no items");
    if (format == CLI_TABLE) {
        cli_print_table(kind, items);
        return CLI_DONE;
    }
    if (name && yyjson_arr_size(items) == 1)
        return cli_print_value(yyjson_arr_get_first(items), format);
    if (format == CLI_JSON)
        return cli_print_value(root, format);
    enum cli_exit status = CLI_DONE;
    yyjson_arr_iter each = yyjson_arr_iter_with(items);
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item && status == CLI_DONE;
         item = yyjson_arr_iter_next(&each)) {
        printf("---\n");
        status = cli_print_value(item, format);
    }
    return status;
}

static enum cli_exit get(const struct cli_call *call, enum resource_kind kind, const char *name)
{
    int format = cli_format(call);
    if (format < 0)
        return CLI_USAGE;
    char target[CLI_TARGET_BYTES];
    enum cli_exit status = target_of(resource_kinds[kind].plural, name, cli_flag_value(call, "tenant"), target);
    if (status != CLI_DONE)
        return status;
    _answer_ struct cli_answer answer = {0};
    status = cli_admin(call, "GET", target, STR(""), &answer);
    if (status != CLI_DONE)
        return status;
    if (!answer.json)
        return cli_complain("the server's answer is not JSON");
    return print_items(kind, name, yyjson_doc_get_root(answer.json), (enum cli_format)format);
}

enum cli_exit cli_get(const struct cli_call *call)
{
    enum resource_kind kind = kind_of(call, call->arguments[0]);
    if (kind == RESOURCE_NONE)
        return CLI_USAGE;
    return get(call, kind, call->n_arguments > 1 ? call->arguments[1] : NULL);
}

enum cli_exit cli_key_list(const struct cli_call *call)
{
    return get(call, RESOURCE_KEY, NULL);
}

static enum cli_exit remove_one(const struct cli_call *call, enum resource_kind kind, const char *name,
                                const char *done)
{
    const char *tenant = cli_flag_value(call, "tenant");
    char target[CLI_TARGET_BYTES];
    enum cli_exit status = target_of(resource_kinds[kind].plural, name, kind == RESOURCE_KEY ? NULL : tenant, target);
    if (status != CLI_DONE)
        return status;
    _answer_ struct cli_answer answer = {0};
    status = cli_admin(call, "DELETE", target, STR(""), &answer);
    if (status != CLI_DONE)
        return status;
    bool tenanted = tenant && resource_kinds[kind].declared && resource_kinds[kind].tenanted;
    printf("%s %s%s%s %s\n", resource_kinds[kind].name, tenanted ? tenant : "", tenanted ? "/" : "", name, done);
    cli_print_pending(&answer);
    return CLI_DONE;
}

enum cli_exit cli_delete(const struct cli_call *call)
{
    enum resource_kind kind = kind_of(call, call->arguments[0]);
    if (kind == RESOURCE_NONE)
        return CLI_USAGE;
    if (resource_kinds[kind].declared && resource_kinds[kind].tenanted && !cli_flag_value(call, "tenant"))
        return cli_usage(call, "delete %s %s needs --tenant T", call->arguments[0], call->arguments[1]);
    return remove_one(call, kind, call->arguments[1], "deleted");
}

enum cli_exit cli_key_revoke(const struct cli_call *call)
{
    return remove_one(call, RESOURCE_KEY, call->arguments[0], "revoked");
}

enum cli_exit cli_key_create(const struct cli_call *call)
{
    const char *name = cli_flag_value(call, "name");
    _buf_ struct buf body;
    buf_init(&body, 64 * KIB);
    buf_append_text(&body, "{\"tenant\":");
    buf_append_json(&body, str_from(cli_flag_value(call, "tenant")));
    if (name) {
        buf_append_text(&body, ",\"name\":");
        buf_append_json(&body, str_from(name));
    }
    buf_append_char(&body, '}');
    if (body.failed)
        return cli_complain("the name is too long");
    _answer_ struct cli_answer answer = {0};
    enum cli_exit status = cli_admin(call, "POST", "/v1alpha1/keys", (struct str){body.data, body.size}, &answer);
    if (status != CLI_DONE)
        return status;
    yyjson_val *root = answer.json ? yyjson_doc_get_root(answer.json) : NULL;
    const char *id = yyjson_get_str(yyjson_obj_get(root, "id")), *key = yyjson_get_str(yyjson_obj_get(root, "key"));
    if (!id || !key)
        return cli_complain("the server's answer has no key");
    cli_print_pending(&answer);
    printf("Key %s for tenant %s, shown only now: %s\n", id, cli_flag_value(call, "tenant"), key);
    return CLI_DONE;
}
