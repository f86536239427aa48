/* Bad neighbours: what a hostile model does to those it shares a machine with, and to its own wall. */
#include "escape.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK_BYTES = 16 << 20, FORKS = 4096, OPENS = 65536, LOG_LINES = 200000, FILL_CHUNKS = 4096, DOZE_MS = 700 };

static void segfault(void)
{
    (void)sigaction(SIGSEGV, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    volatile uintptr_t nowhere = 8; /* which the compiler must not know */
    *(volatile char *)nowhere = 1;
}

static void loop(void)
{
    for (volatile unsigned i = 0;; i++) {
    }
}

static void sleep_for_ever(void)
{
    for (;;)
        (void)poll(NULL, 0, -1);
}

static void eat_memory(void)
{
    for (;;) {
        char *more = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more == MAP_FAILED)
            _exit(1);
        memset(more, 1, CHUNK_BYTES);
    }
}

/* What this could start sleeps until the worker ends. */
static void fork_many(void)
{
    for (int i = 0; i < FORKS; i++) {
        if (fork() == 0)
            sleep_for_ever();
    }
}

static void open_many(void)
{
    for (int i = 0; i < OPENS; i++)
        (void)!dup(2);
}

static void fill_tmp(void)
{
    static char chunk[1 << 20];
    for (int i = 0; i < FILL_CHUNKS; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "/tmp/fill-%d", i);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, chunk, sizeof chunk) < (ssize_t)sizeof chunk)
            return;
        (void)close(fd);
    }
}

static void flood_log(void)
{
    for (int i = 0; i < LOG_LINES; i++)
        (void)!write(2, "{\"level\":\"alert\",\"message\":\"forged\"}\n", 37);
}

/* No harm: time for others to do it. */
static void doze(void)
{
    (void)poll(NULL, 0, DOZE_MS);
}

static void leave(void)
{
    _exit(0);
}

static const struct {
    const char *name;
    void (*run)(void);
} deeds[] = {
    {"segfault", segfault},     {"loop", loop},           {"sleep", sleep_for_ever},
    {"eat-memory", eat_memory}, {"fork", fork_many},      {"open", open_many},
    {"fill-tmp", fill_tmp},     {"flood-log", flood_log}, {"abort", (void (*)(void))abort},
    {"leave", leave},           {"doze", doze},
};

int neighbour_run(const char *name)
{
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        if (strcmp(deeds[i].name, name) == 0) {
            deeds[i].run();
            return 1;
        }
    }
    return 0;
}
