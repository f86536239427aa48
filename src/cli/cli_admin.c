/* Requests to the admin socket. */
#include "cli_internal.h"

#include <unistd.h>

#define ADMIN_DEFAULT "/var/lib/bulkhead/admin.sock"
#define ADMIN_DEMO    "demo-data/admin.sock"
/* Longest silence of the server: it waits 2 s for the gateway, and 30 s for a model's queue, and a first start of a
 * model takes up to a minute. */
#define TIMEOUT_MS (2 * LIMIT_REPLICA_START_MS)

void cli_answer_done(struct cli_answer *answer)
{
    yyjson_doc_free(answer->json);
    buf_done(&answer->body);
    answer->json = NULL;
}

static int socket_path(const struct cli_call *call, char *ret_path, size_t capacity)
{
    const char *path = cli_flag_value(call, "admin"), *data = cli_flag_value(call, "data");
    if (!path && data) {
        int length = snprintf(ret_path, capacity, "%s/admin.sock", data);
        return length > 0 && (size_t)length < capacity ? 0 : -ERROR_LIMIT;
    }
    if (!path)
        path = getenv("BULKHEAD_ADMIN");
    if (!path || !path[0])
        path = access(ADMIN_DEFAULT, F_OK) != 0 && access(ADMIN_DEMO, F_OK) == 0 ? ADMIN_DEMO : ADMIN_DEFAULT;
    return str_copy(str_from(path), ret_path, capacity);
}

enum cli_exit cli_admin_send(const struct cli_call *call, const struct wire_client_request *request,
                             struct cli_answer *ret_answer)
{
    char path[4096];
    if (cli_flag_value(call, "admin") && cli_flag_value(call, "data"))
        return cli_usage(call, "--admin and --data name the same thing; give one");
    if (socket_path(call, path, sizeof path) < 0)
        return cli_complain("the path of the admin socket is too long");
    struct error err = {0};
    buf_init(&ret_answer->body, CLI_ANSWER_BYTES_MAX);
    int rc = wire_client_unix(path, request, &ret_answer->status, &ret_answer->body, &err);
    if (rc < 0)
        return cli_complain("%s", error_text(&err, rc));
    ret_answer->json = yyjson_read(ret_answer->body.data, ret_answer->body.size, 0);
    return CLI_DONE;
}

void cli_answer_error(const struct cli_answer *answer, struct buf *text)
{
    yyjson_val *message = answer->json ? yyjson_obj_get(yyjson_doc_get_root(answer->json), "error") : NULL;
    if (yyjson_is_str(message))
        buf_append_text(text, yyjson_get_str(message));
    else
        buf_format(text, "the server answered %d", answer->status);
}

enum cli_exit cli_admin(const struct cli_call *call, const char *method, const char *target, struct str body,
                        struct cli_answer *ret_answer)
{
    struct wire_client_request request = {.method = method,
                                          .target = target,
                                          .content_type = body.size > 0 ? "application/json" : NULL,
                                          .body = body,
                                          .body_fd = -1,
                                          .timeout_ms = TIMEOUT_MS};
    enum cli_exit status = cli_admin_send(call, &request, ret_answer);
    if (status != CLI_DONE || (ret_answer->status >= 200 && ret_answer->status < 300))
        return status;
    _buf_ struct buf text;
    buf_init(&text, 4 * KIB);
    cli_answer_error(ret_answer, &text);
    return cli_complain("%s", buf_terminate(&text));
}

void cli_print_pending(const struct cli_answer *answer)
{
    yyjson_val *root = answer->json ? yyjson_doc_get_root(answer->json) : NULL;
    yyjson_val *taken = yyjson_obj_get(root, "taken");
    if (taken && !yyjson_get_bool(taken))
        fprintf(stderr,
                "bulkhead: stored as generation %llu, but pending: the gateway has not taken it up yet; see bulkhead "
                "status\n",
                (unsigned long long)yyjson_get_uint(yyjson_obj_get(root, "generation")));
}
