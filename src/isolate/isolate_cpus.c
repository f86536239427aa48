#include "isolate/isolate_cpus.h"

#include "base/buf.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WORDS (LIMIT_CPUS / 64)

_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "the kernel's sets have words of this size");

void isolate_cpus_add(struct isolate_cpus *set, uint32_t cpu)
{
    set->words[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}

bool isolate_cpus_has(const struct isolate_cpus *set, uint32_t cpu)
{
    return set->words[cpu / 64] >> (cpu % 64) & 1;
}

uint32_t isolate_cpus_count(const struct isolate_cpus *set)
{
    uint32_t n = 0;
    for (size_t i = 0; i < WORDS; i++)
        n += (uint32_t)__builtin_popcountll(set->words[i]);
    return n;
}

bool isolate_cpus_within(const struct isolate_cpus *set, const struct isolate_cpus *all)
{
    for (size_t i = 0; i < WORDS; i++)
        if (set->words[i] & ~all->words[i])
            return false;
    return true;
}

void isolate_cpus_unite(struct isolate_cpus *set, const struct isolate_cpus *more)
{
    for (size_t i = 0; i < WORDS; i++)
        set->words[i] |= more->words[i];
}

void isolate_cpus_subtract(struct isolate_cpus *set, const struct isolate_cpus *less)
{
    for (size_t i = 0; i < WORDS; i++)
        set->words[i] &= ~less->words[i];
}

void isolate_cpus_keep(struct isolate_cpus *set, const struct isolate_cpus *only)
{
    for (size_t i = 0; i < WORDS; i++)
        set->words[i] &= only->words[i];
}

static bool number_cut(struct str *rest, uint32_t *ret_number)
{
    uint64_t number;
    size_t digits = 0;
    while (digits < rest->size && rest->data[digits] >= '0' && rest->data[digits] <= '9')
        digits++;
    if (str_to_u64((struct str){rest->data, digits}, &number) < 0 || number >= LIMIT_CPUS)
        return false;
    *rest = str_skip(*rest, digits);
    *ret_number = (uint32_t)number;
    return true;
}

int isolate_cpus_parse(struct str text, struct isolate_cpus *ret_set)
{
    struct isolate_cpus set = {0};
    while (text.size > 0 && (text.data[text.size - 1] == '\n' || text.data[text.size - 1] == ' '))
        text.size--;
    while (text.size > 0) {
        uint32_t first, last;
        if (!number_cut(&text, &first))
            return -ERROR_INVALID_ARGUMENT;
        last = first;
        if (text.size > 0 && text.data[0] == '-') {
            text = str_skip(text, 1);
            if (!number_cut(&text, &last) || last < first)
                return -ERROR_INVALID_ARGUMENT;
        }
        for (uint32_t cpu = first; cpu <= last; cpu++)
            isolate_cpus_add(&set, cpu);
        if (text.size > 0 && (text.data[0] != ',' || text.size == 1))
            return -ERROR_INVALID_ARGUMENT;
        text = str_skip(text, text.size > 0 ? 1 : 0);
    }
    *ret_set = set;
    return 0;
}

void isolate_cpus_text(const struct isolate_cpus *set, char *text, size_t capacity)
{
    _buf_ struct buf b;
    buf_init(&b, ISOLATE_CPUS_TEXT);
    for (uint32_t cpu = 0; cpu < LIMIT_CPUS; cpu++) {
        if (!isolate_cpus_has(set, cpu))
            continue;
        uint32_t last = cpu;
        while (last + 1 < LIMIT_CPUS && isolate_cpus_has(set, last + 1))
            last++;
        buf_format(&b, last > cpu ? "%s%u-%u" : "%s%u", b.size > 0 ? "," : "", cpu, last);
        cpu = last;
    }
    (void)snprintf(text, capacity, "%s", buf_terminate(&b)); /* cut as promised */
}

int isolate_cpus_of(pid_t pid, struct isolate_cpus *ret_set)
{
    struct isolate_cpus set = {0}; /* by system call: it tells how much it has written, and takes any size */
    if (syscall(SYS_sched_getaffinity, pid, sizeof set, &set) < 0)
        return -ERROR_NOT_FOUND;
    *ret_set = set;
    return 0;
}

bool isolate_cpus_bind(pid_t pid, const struct isolate_cpus *set)
{
    char path[64];
    bool good = true;
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid); /* fits */
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        uint64_t task;
        if (str_to_u64(str_from(entry->d_name), &task) < 0 || task > INT32_MAX)
            continue;
        good &= syscall(SYS_sched_setaffinity, (pid_t)task, sizeof *set, set) == 0;
    }
    if (!dir)
        return false;
    (void)closedir(dir); /* was only read */
    return good;
}

void isolate_cpus_core(uint32_t cpu, struct isolate_cpus *ret_set)
{
    char path[96], text[ISOLATE_CPUS_TEXT];
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu); /* fits */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
    struct isolate_cpus set = {0};
    if (size <= 0 || isolate_cpus_parse((struct str){text, (size_t)size}, &set) < 0)
        set = (struct isolate_cpus){0};
    isolate_cpus_add(&set, cpu);
    *ret_set = set;
}
