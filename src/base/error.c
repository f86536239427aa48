#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct error_info infos[ERROR_COUNT] = {[ERROR_NONE] = {"ok", 200, false, "Done."},
#define X(code, name, status, retryable, text) [ERROR_##code] = {name, status, retryable, text},
                                                     ERROR_TABLE(X)
#undef X
};

static int code_negative(int code)
{
    return code > 0 ? -code : code;
}

const struct error_info *error_info(int code)
{
    int index = -code_negative(code);
    if (index < 0 || index >= ERROR_COUNT)
        return &infos[ERROR_INTERNAL];
    return &infos[index];
}

int error_set(struct error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args); /* truncation is the documented behaviour */
        va_end(args);
        err->code = code_negative(code);
        err->retry_after_ms = 0;
    }
    return code_negative(code);
}

int error_set_default(struct error *err, int code)
{
    return error_set(err, code, "%s", error_info(code)->text);
}

int error_wrap(struct error *err, int code, const char *format, ...)
{
    if (!err)
        return code_negative(code);
    char context[ERROR_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(context, sizeof context, format, args); /* truncation is harmless */
    va_end(args);
    char text[ERROR_TEXT_BYTES_MAX * 2 + 4];
    (void)snprintf(text, sizeof text, "%s: %s", context, error_text(err, code)); /* cut to size below */
    text[sizeof err->text - 1] = '\0';
    memcpy(err->text, text, sizeof err->text);
    if (!err->code)
        err->code = code_negative(code);
    return err->code;
}

const char *error_text(const struct error *err, int code)
{
    if (err && err->text[0])
        return err->text;
    return error_info(code)->text;
}
