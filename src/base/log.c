#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

/* Writes to a pipe of up to PIPE_BUF bytes are atomic (POSIX, write): longer lines of two processes could mix. */
#define LOG_LINE_BYTES_MAX    PIPE_BUF
#define LOG_MESSAGE_BYTES_MAX 1024

static const char *const level_names[LOG_LEVEL_COUNT] = {
    [LOG_LEVEL_ALERT] = "alert", [LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_INFO] = "info",   [LOG_LEVEL_DEBUG] = "debug",
};

static const char *log_role = "main";
static enum log_level log_level_max = LOG_LEVEL_INFO;

void log_setup(const char *role, enum log_level level_max)
{
    log_role = role;
    log_level_max = level_max;
}

int log_level_from_name(const char *name)
{
    for (int i = 0; i < LOG_LEVEL_COUNT; i++)
        if (strcmp(level_names[i], name) == 0)
            return i;
    return -1;
}

/* One line with at most `size` bytes of each text; false when that is longer than a line may be. */
static bool line_build(struct buf *line, enum log_level level, const char *event, const char *message, size_t size)
{
    char time_text[CLOCK_TEXT_BYTES];
    clock_wall_text(clock_wall_ms(), time_text);
    buf_clear(line);
    buf_format(line, "{\"time\":\"%s\",\"level\":\"%s\",\"role\":\"%s\",\"pid\":%d,\"event\":", time_text,
               level_names[level], log_role, (int)getpid());
    buf_append_json(line, (struct str){event, strnlen(event, size)});
    buf_append_text(line, ",\"message\":");
    buf_append_json(line, (struct str){message, strnlen(message, size)});
    buf_append_text(line, "}\n");
    return !line->failed;
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
    if (level > log_level_max)
        return;
    int saved = errno;
    char message[LOG_MESSAGE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args); /* a log message may be cut */
    va_end(args);
    _buf_ struct buf line;
    buf_init(&line, LOG_LINE_BYTES_MAX);
    /* Escaped, a byte may become six: texts are cut until they fit. */
    size_t size = sizeof message;
    while (!line_build(&line, level, event, message, size) && size > 0)
        size /= 2;
    if (!line.failed)
        while (write(STDERR_FILENO, line.data, line.size) < 0 && errno == EINTR) {
            /* any other failure: nowhere left to say it */
        }
    errno = saved;
}
