/* Refusals as OpenAI's clients know them: which of their exceptions a status and type becomes is the clients' own
 * table (400 BadRequest, 401 Authentication, 404 NotFound, 429 RateLimit, 5xx InternalServer). */
#include "api/serve/openai_codec.h"

static const char *type_of(int code)
{
    int status = error_info(code)->http_status;
    if (code == ERROR_QUOTA_EXCEEDED)
        return "insufficient_quota";
    if (status == 429)
        return "requests";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *name_of(int code)
{
    switch (code) {
    case ERROR_UNAUTHENTICATED:
        return "invalid_api_key";
    case ERROR_NOT_FOUND:
        return "unknown_url";
    case ERROR_METHOD_NOT_ALLOWED:
        return "method_not_supported";
    case ERROR_RATE_LIMITED:
    case ERROR_QUEUE_FULL:
        return "rate_limit_exceeded";
    case ERROR_QUOTA_EXCEEDED:
        return "insufficient_quota";
    case ERROR_INVALID_JSON:
    case ERROR_INVALID_REQUEST:
    case ERROR_INVALID_ARGUMENT:
        return NULL;
    default:
        return error_info(code)->name;
    }
}

static void encode(int code, const char *name, const char *param, const char *message, struct buf *b)
{
    buf_append_text(b, "{\"error\":{\"message\":");
    buf_append_json(b, str_from(message));
    buf_format(b, ",\"type\":\"%s\",\"param\":", type_of(code));
    if (*param)
        buf_append_json(b, str_from(param));
    else
        buf_append_text(b, "null");
    buf_append_text(b, ",\"code\":");
    if (name)
        buf_append_json(b, str_from(name));
    else
        buf_append_text(b, "null");
    buf_append_text(b, "}}");
}

void openai_error_encode(const struct openai_error *error, struct buf *b)
{
    int code = error->code < 0 ? -error->code : error->code;
    encode(code, error->name ? error->name : name_of(code), error->param, error->message, b);
}

void openai_failure_encode(int code, const char *text, struct buf *b)
{
    code = code < 0 ? -code : code;
    encode(code, name_of(code), "", text, b);
}
