/* Tests every level of the ladder once, outside of a server: for `bulkhead doctor` and `bulkhead advise`.
 *
 * Any user. Works beside a running server: it has a scope of its own (control groups, states), which is gone
 * afterwards. Each probe runs in a child of its own; a probe that hangs is ended after ISOLATE_PROBE_MS. */
#ifndef BULKHEAD_ISOLATE_SURVEY_H
#define BULKHEAD_ISOLATE_SURVEY_H

#include "isolate/isolate.h"

struct isolate_survey {
    enum isolate_level level;
    bool built; /* there is a back-end in this build */
    struct isolate_report report;
    uint32_t probe_ms; /* how long the test took: at least one whole start and end; 0 without a back-end */
};

/* Rows 0 … ISOLATE_LEVEL_COUNT - 2 are levels 1 …. Blocks, some seconds where a virtual machine is booted in software;
 * `progress` is called before each test (NULL allowed). */
#define ISOLATE_SURVEY_ROWS (ISOLATE_LEVEL_COUNT - 1)
void isolate_survey(struct isolate_survey ret_rows[static ISOLATE_SURVEY_ROWS],
                    void (*progress)(void *ctx, enum isolate_level level), void *ctx);

#endif
