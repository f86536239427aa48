#include "isolate/isolate_fake.h"

#include "isolate/isolate_internal.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>

#define FAKE_TEXT "fake (no wall at all: for tests)"

static struct {
    struct isolate_fake_calls calls;
    unsigned fail_in; /* 0 = never */
    int fail_code;
    struct isolate_report report;
    bool report_set;
} fake;

void isolate_fake_reset(void)
{
    assert(fake.calls.live == 0);
    memset(&fake, 0, sizeof fake);
}

struct isolate_fake_calls isolate_fake_count(void)
{
    return fake.calls;
}

void isolate_fake_fail_spawn(unsigned nth, int code)
{
    fake.fail_in = nth;
    fake.fail_code = code;
}

void isolate_fake_report(const struct isolate_report *report)
{
    fake.report_set = report != NULL;
    if (report)
        fake.report = *report;
}

static int fake_setup(const char *scope, struct error *err)
{
    (void)scope;
    (void)err;
    fake.calls.setups++;
    return 0;
}

static void fake_teardown(void)
{
    fake.calls.teardowns++;
}

static void fake_probe(struct isolate_report *ret_report)
{
    fake.calls.probes++;
    const struct isolate_report standard = {.available = true, .limits = true, .text = FAKE_TEXT};
    *ret_report = fake.report_set ? fake.report : standard;
}

static int fake_spawn(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                      struct error *err)
{
    fake.calls.spawns++;
    if (fake.fail_in > 0 && --fake.fail_in == 0)
        return error_set(err, fake.fail_code, "This spawn fails, as planned.");
    int r = isolate_spawn_check(spawn, false, err);
    if (r != 0)
        return r;
    struct isolate_instance *i = isolate_instance_new(spawn);
    if (!i)
        return error_set_default(err, ERROR_NO_MEMORY);
    struct isolate_launch launch = {.spawn = spawn, .join = CGROUP_JOIN_NONE};
    r = isolate_launch(&launch, &i->pid, &i->pidfd, err);
    if (r != 0) {
        isolate_instance_free(i);
        return r;
    }
    i->limits = true; /* a lie, as far as tests are concerned */
    fake.calls.live++;
    *ret_instance = i;
    *ret_pidfd = i->pidfd;
    return 0;
}

static int fake_limit(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err)
{
    (void)i;
    fake.calls.limits++;
    if (limits->memory_bytes == 0 || limits->cpu_milli == 0 || limits->pids == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "The limits cannot be changed: a limit is 0.");
    return 0;
}

static int fake_usage(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err)
{
    (void)err;
    fake.calls.usages++;
    isolate_process_usage(i);
    *ret_usage = i->usage_last;
    return 0;
}

static void fake_kill(struct isolate_instance *i)
{
    fake.calls.kills++;
    if (!i->reaped)
        (void)kill(-i->pid, SIGKILL); /* its session, so that what it started goes as well */
    isolate_instance_kill(i);
}

static void fake_explain(struct isolate_instance *i, struct isolate_report *ret_report)
{
    fake.calls.explains++;
    *ret_report = (struct isolate_report){.available = true, .limits = true, .pid = i->pid};
    (void)snprintf(ret_report->text, sizeof ret_report->text, FAKE_TEXT "; pid %d", (int)i->pid); /* fits */
}

static int fake_discard(struct isolate_instance *i, int *ret_status)
{
    fake.calls.discards++;
    int r = isolate_instance_reap(i, ret_status);
    if (r != 0)
        return r;
    fake.calls.live--;
    isolate_instance_free(i);
    return 0;
}

const struct isolate_ops isolate_fake = {
    .name = "fake",
    .level = ISOLATE_PROCESS,
    .probe = fake_probe,
    .spawn = fake_spawn,
    .limit = fake_limit,
    .usage = fake_usage,
    .kill = fake_kill,
    .explain = fake_explain,
    .reap = isolate_instance_reap,
    .discard = fake_discard,
    .setup = fake_setup,
    .teardown = fake_teardown,
};
