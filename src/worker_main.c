/* bulkhead-worker: wiring only. Descriptor 3 is the conversation with the supervisor. */
#include "base/filter.h"
#include "base/log.h"
#include "isolate/isolate_follow.h"
#include "isolate/isolate_self.h"
#include "worker/worker.h"

#include <string.h>
#include <sys/prctl.h>

/* LeakSanitizer's hook (only called in sanitizer builds): it cannot look into a locked-down process. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}

int main(int argc, char **argv)
{
    if (isolate_follow(&argc, &argv) < 0)
        return 1;
    log_setup("worker", LOG_LEVEL_INFO);
    (void)prctl(PR_SET_NAME, "bulkhead-worker"); /* executed by descriptor: the kernel's own name would be a number */
    struct error err = {0};
    if (isolate_lockdown_self(&err) < 0 || filter_install(&filter_worker_load, &err) < 0) {
        log_error("worker_lockdown", "%s", error_text(&err, err.code));
        return 1;
    }
    return argc > 1 && strcmp(argv[1], INGEST_ARGUMENT) == 0 ? ingest_run(3) : worker_run(3);
}
