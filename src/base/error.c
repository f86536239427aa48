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
    int negative = code_negative(code); /* compared, not negated again: there is no -INT_MIN */
    if (negative <= -ERROR_COUNT)
        return &infos[ERROR_INTERNAL];
    return &infos[-negative];
}

/* After a cut: drops the character that lost its end, so that valid UTF-8 stays valid. */
static void text_end(char *text, size_t size)
{
    size_t lead = size;
    while (lead > 0 && size - lead < 3 && ((unsigned char)text[lead - 1] & 0xC0u) == 0x80u)
        lead--;
    if (lead == 0)
        return;
    unsigned char c = (unsigned char)text[lead - 1];
    size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    if (length > size - (lead - 1))
        text[lead - 1] = '\0';
}

static void text_set(char *text, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* text: [ERROR_TEXT_BYTES_MAX] */
static void text_set(char *text, const char *format, va_list args)
{
    if (vsnprintf(text, ERROR_TEXT_BYTES_MAX, format, args) >= ERROR_TEXT_BYTES_MAX) /* cut, as documented */
        text_end(text, ERROR_TEXT_BYTES_MAX - 1);
}

int error_set(struct error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        text_set(err->text, format, args);
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
    char context[ERROR_TEXT_BYTES_MAX], text[ERROR_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    text_set(context, format, args);
    va_end(args);
    int length = snprintf(text, sizeof text, "%s: %s", context, error_text(err, code));
    if (length >= (int)sizeof text)
        text_end(text, sizeof text - 1);
    memcpy(err->text, text, strlen(text) + 1); /* no further: err crosses processes, our stack must not */
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
