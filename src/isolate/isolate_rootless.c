#include "isolate/isolate_rootless.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "isolate/isolate_host.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINES_MAX 65536u /* of /etc/subuid: a host with so many users has them elsewhere */

struct range {
    uint32_t first, count;
};

struct found {
    char user[64];
    char newuidmap[64], newgidmap[64];
    struct range uids, gids;
};

/* "name:100000:65536", the name may be a number. */
static bool line_range(char *line, const char *user, const char *number, struct range *ret_range)
{
    uint64_t first, count;
    char *rest = line, *name = strsep(&rest, ":"), *second = strsep(&rest, ":");
    if (!second || !rest || (strcmp(name, user) != 0 && strcmp(name, number) != 0))
        return false;
    rest[strcspn(rest, "\n")] = '\0';
    if (str_to_u64(str_from(second), &first) < 0 || str_to_u64(str_from(rest), &count) < 0)
        return false;
    if (first == 0 || count < ISOLATE_ROOTLESS_IDS_MIN || first > UINT32_MAX - 1 || count > UINT32_MAX - 1 - first)
        return false;
    *ret_range = (struct range){(uint32_t)first, (uint32_t)count};
    return true;
}

static bool range_find(const char *path, const char *user, struct range *ret_range)
{
    char line[256], number[16];
    bool got = false;
    FILE *file = fopen(path, "re");
    (void)snprintf(number, sizeof number, "%u", (unsigned)geteuid()); /* fits */
    for (unsigned i = 0; file && !got && i < LINES_MAX && fgets(line, sizeof line, file); i++)
        got = line_range(line, user, number, ret_range);
    if (file)
        (void)fclose(file);
    return got;
}

static int found_fill(struct found *f, struct error *err)
{
    const struct passwd *user = getpwuid(geteuid());
    *f = (struct found){0};
    if (user && strlen(user->pw_name) < sizeof f->user)
        (void)snprintf(f->user, sizeof f->user, "%s", user->pw_name); /* length was checked */
    else
        (void)snprintf(f->user, sizeof f->user, "%u", (unsigned)geteuid()); /* fits */
    if (!isolate_program_find("newuidmap", f->newuidmap, sizeof f->newuidmap) ||
        !isolate_program_find("newgidmap", f->newgidmap, sizeof f->newgidmap))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "newuidmap and newgidmap are not installed: apt install uidmap");
    if (!range_find("/etc/subuid", f->user, &f->uids) || !range_find("/etc/subgid", f->user, &f->gids))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "user %s has no %u subordinate ids in /etc/subuid and /etc/subgid: usermod --add-subuids "
                         "100000-165535 --add-subgids 100000-165535 %s",
                         f->user, ISOLATE_ROOTLESS_IDS_MIN, f->user);
    return 0;
}

/* newuidmap PID 0 OURS 1 1 FIRST COUNT: the user itself becomes root, its subordinate ids follow. */
static int map_run(const char *program, pid_t pid, uint32_t ours, struct range range)
{
    char words[4][16];
    const uint32_t numbers[4] = {(uint32_t)pid, ours, range.first, range.count};
    for (size_t i = 0; i < 4; i++)
        (void)snprintf(words[i], sizeof words[i], "%u", numbers[i]); /* fits */
    char *const argv[] = {(char *)(uintptr_t)program, words[0], "0", words[1], "1", "1", words[2], words[3], NULL};
    char *const environment[] = {NULL};
    pid_t child = fork();
    if (child == 0) {
        (void)execve(program, argv, environment);
        _exit(127);
    }
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* The helper stays outside: a map is written by who stands above the namespace. */
static _Noreturn void helper_main(const struct found *f, pid_t pid, int ready_fd, uid_t uid, gid_t gid)
{
    char byte;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != pid || read(ready_fd, &byte, 1) != 1)
        _exit(1);
    _exit(map_run(f->newuidmap, pid, uid, f->uids) == 0 && map_run(f->newgidmap, pid, gid, f->gids) == 0 ? 0 : 2);
}

int isolate_rootless_enter(uint32_t *ret_ids, struct error *err)
{
    struct found f;
    int r = found_fill(&f, err), pair[2], status = 0;
    if (r < 0)
        return r;
    if (pipe2(pair, O_CLOEXEC) < 0)
        return error_set(err, ERROR_IO, "no pipe: %s", strerrordesc_np(errno));
    _close_ int ready = pair[0], told = pair[1];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    pid_t pid = getpid(), helper = fork();
    if (helper == 0) {
        fd_close(&told);
        helper_main(&f, pid, ready, uid, gid);
    }
    if (helper < 0)
        return error_set(err, ERROR_IO, "no process: %s", strerrordesc_np(errno));
    bool apart = unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    int unshare_errno = errno;
    bool asked = apart && write(told, "x", 1) == 1;
    fd_close(&told); /* without the byte, the helper ends */
    while (waitpid(helper, &status, 0) < 0 && errno == EINTR)
        ;
    if (!apart)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "a plain user cannot make user namespaces here (%s); look at the sysctls "
                         "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
                         "kernel.apparmor_restrict_unprivileged_userns",
                         strerrordesc_np(unshare_errno));
    if (!asked || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "newuidmap or newgidmap refused to map the subordinate ids of user %s: are they what "
                         "/etc/subuid and /etc/subgid say, and are both programs set-uid root?",
                         f.user);
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 || setgroups(0, NULL) < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "the namespace of the plain user has no root: %s",
                         strerrordesc_np(errno));
    *ret_ids = f.uids.count < f.gids.count ? f.uids.count : f.gids.count;
    return 0;
}

bool isolate_rootless_describe(char *text, size_t capacity)
{
    struct found f;
    struct error err = {0};
    int r = found_fill(&f, &err);
    if (r < 0)
        (void)snprintf(text, capacity, "%s", error_text(&err, r)); /* cut is fine: for people */
    else
        (void)snprintf(text, capacity, "%u subordinate ids of %s",
                       f.uids.count < f.gids.count ? f.uids.count : f.gids.count, f.user); /* fits */
    return r >= 0;
}
