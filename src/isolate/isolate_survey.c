#include "isolate/isolate_survey.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "isolate/isolate_rootless.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* In the child: everything from setup to teardown, so that the caller keeps nothing. */
static _Noreturn void survey_child(const struct isolate_ops *ops, pid_t parent, int fd)
{
    struct isolate_report report = {0};
    struct error err = {0};
    char scope[32];
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
    (void)snprintf(scope, sizeof scope, "doctor-%d", (int)getpid()); /* fits */
    uint32_t ids;
    int r = geteuid() == 0 ? 0 : isolate_rootless_enter(&ids, &err); /* as serve does */
    if (r >= 0)
        r = ops->setup(scope, &err);
    if (r < 0) {
        (void)snprintf(report.text, sizeof report.text, "%s", error_text(&err, r)); /* same size */
    } else {
        if (ops->want)
            ops->want(ISOLATE_RUNTIME_ANY);
        ops->probe(&report);
        ops->teardown();
    }
    _exit(write(fd, &report, sizeof report) == (ssize_t)sizeof report ? 0 : 1);
}

static void survey_one(const struct isolate_ops *ops, struct isolate_survey *row)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0) {
        (void)snprintf(row->report.text, sizeof row->report.text, "cannot be tested: %s", strerrordesc_np(errno));
        return;
    }
    _close_ int ours = pair[0], theirs = pair[1];
    uint64_t start_ns = clock_monotonic_ns();
    (void)fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        survey_child(ops, parent, theirs);
    fd_close(&theirs);
    struct isolate_report report = {0};
    struct pollfd end = {.fd = ours, .events = POLLIN};
    ssize_t got = pid < 0 || poll(&end, 1, ISOLATE_PROBE_MS) <= 0 ? -1 : read(ours, &report, sizeof report);
    row->probe_ms = (uint32_t)((clock_monotonic_ns() - start_ns) / NS_PER_MS);
    if (pid > 0) {
        (void)kill(pid, got < 0 ? SIGKILL : 0); /* our own child, not yet reaped */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (got == (ssize_t)sizeof report) {
        report.text[sizeof report.text - 1] = '\0';
        row->report = report;
    } else {
        (void)snprintf(row->report.text, sizeof row->report.text, "cannot be tested: %s",
                       got < 0 ? "the test did not end" : "the test ended without a result");
    }
}

void isolate_survey(struct isolate_survey ret_rows[static ISOLATE_SURVEY_ROWS],
                    void (*progress)(void *ctx, enum isolate_level level), void *ctx)
{
    for (int level = ISOLATE_NONE + 1; level < ISOLATE_LEVEL_COUNT; level++) {
        struct isolate_survey *row = &ret_rows[level - 1];
        const struct isolate_ops *ops = isolate_find((enum isolate_level)level);
        *row = (struct isolate_survey){.level = (enum isolate_level)level, .built = ops != NULL};
        if (!ops) {
            (void)snprintf(row->report.text, sizeof row->report.text, "not in this build of the server"); /* fits */
            continue;
        }
        if (progress)
            progress(ctx, row->level);
        survey_one(ops, row);
        if (ops->level != row->level) {
            char text[sizeof row->report.text];
            (void)snprintf(text, sizeof text, "%s", row->report.text); /* same size */
            (void)snprintf(row->report.text, sizeof row->report.text, "blank workers behind the walls of %.440s", text);
        }
    }
}
