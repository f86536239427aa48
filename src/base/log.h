/* JSON log lines on stderr: one object per line, one write(2) per line, so lines of several processes never mix.
 *
 *   log_info("replica_started", "tenant=%s model=%s", tenant, model)
 *   {"time":"…","level":"info","role":"supervisor","event":"replica_started","message":"tenant=… model=…"}
 *
 * Any role; single-threaded callers. Levels: `alert` means that an operator must look (live tests fail on one), error a
 * request or replica failed by our fault, warn something odd that was handled, info life cycle, debug the rest.
 * No secret, no tenant payload and no key may be logged. */
#ifndef BULKHEAD_BASE_LOG_H
#define BULKHEAD_BASE_LOG_H

enum log_level {
    LOG_LEVEL_ALERT = 0,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_COUNT
};

/* `role` is kept by pointer and must live forever. Default: role "main", level info. */
void log_setup(const char *role, enum log_level level_max);
/* -1 when the name is unknown. */
int log_level_from_name(const char *name);

void log_write(enum log_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define log_alert(...) log_write(LOG_LEVEL_ALERT, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
