#include "base/blocked.h"

#include "base/filter.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

/* A lock in the handler could be held by the code that it interrupts. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_BOOL_LOCK_FREE == 2, "the handler must not wait");

#define CODE_SECCOMP 1 /* SYS_SECCOMP of si_code; libc's headers lack it in some versions */

/* What this process was refused and blocked_take has not taken. A place is claimed once, for a number + 1. */
static struct {
    _Atomic uint32_t claimed, count;
} counted[LIMIT_BLOCKED_CALLS + 1];
static atomic_bool any;

static uint32_t sum_of(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* The number's place in the list, made when it is new. */
static struct blocked_call *place_of(struct blocked_list *list, uint32_t number)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (list->calls[i].number == number)
            return &list->calls[i];
    if (number != BLOCKED_OTHERS && list->n >= LIMIT_BLOCKED_CALLS)
        return place_of(list, BLOCKED_OTHERS);
    list->calls[list->n] = (struct blocked_call){.number = number};
    return &list->calls[list->n++];
}

void blocked_add(struct blocked_list *list, uint32_t number, uint32_t count)
{
    if (count == 0)
        return;
    struct blocked_call *call = place_of(list, number);
    call->count = sum_of(call->count, count);
}

uint32_t blocked_raise(struct blocked_list *list, uint32_t number, uint32_t count)
{
    if (count == 0)
        return 0;
    struct blocked_call *call = place_of(list, number);
    uint32_t grown = count > call->count ? count - call->count : 0;
    call->count += grown;
    return grown;
}

uint64_t blocked_sum(const struct blocked_list *list)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < list->n; i++)
        sum += list->calls[i].count;
    return sum;
}

const char *blocked_name(uint32_t number, char text[static BLOCKED_NAME_BYTES])
{
    const char *name = filter_call_name(number);
    if (number == BLOCKED_OTHERS)
        name = "others";
    if (name)
        (void)snprintf(text, BLOCKED_NAME_BYTES, "%s", name); /* the longest has 23 bytes */
    else
        (void)snprintf(text, BLOCKED_NAME_BYTES, "call %u", number); /* fits */
    return text;
}

#define WORDS_MAX 4u

const char *blocked_words(const struct blocked_list *list, char text[static BLOCKED_WORDS_BYTES])
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < list->n && i < WORDS_MAX; i++) { /* 50 bytes each at most: all fit */
        const struct blocked_call *call = &list->calls[i];
        char name[BLOCKED_NAME_BYTES];
        used += (size_t)snprintf(text + used, BLOCKED_WORDS_BYTES - used, "%s%s (%u %s)", i > 0 ? ", " : "",
                                 blocked_name(call->number, name), call->count, call->count == 1 ? "time" : "times");
    }
    if (list->n > WORDS_MAX)
        (void)snprintf(text + used, BLOCKED_WORDS_BYTES - used, " and %u more", list->n - WORDS_MAX);
    return text;
}

/* --- in a worker --- */

static void count(uint32_t number)
{
    uint32_t i = number == BLOCKED_OTHERS ? LIMIT_BLOCKED_CALLS : 0; /* syscall(-1) */
    for (; i < LIMIT_BLOCKED_CALLS; i++) {
        uint32_t free_place = 0;
        uint32_t claimed = atomic_load_explicit(&counted[i].claimed, memory_order_relaxed);
        if (claimed == number + 1 ||
            (claimed == 0 && atomic_compare_exchange_strong(&counted[i].claimed, &free_place, number + 1)) ||
            free_place == number + 1) /* another thread came first, with the same call */
            break;
    }
    if (atomic_load_explicit(&counted[i].count, memory_order_relaxed) < UINT32_MAX / 2) /* however many threads */
        (void)atomic_fetch_add(&counted[i].count, 1);
    atomic_store(&any, true);
}

static void on_blocked(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    if (info->si_code != CODE_SECCOMP)
        return;
    ucontext_t *thread = context;
#if defined(__x86_64__)
    thread->uc_mcontext.gregs[REG_RAX] = -EPERM;
#elif defined(__aarch64__)
    thread->uc_mcontext.regs[0] = (unsigned long long)-EPERM;
#else
    (void)thread;
#endif
    count((uint32_t)info->si_syscall);
}

int blocked_catch(void)
{
    struct sigaction action = {.sa_sigaction = on_blocked, .sa_flags = SA_SIGINFO | SA_RESTART};
    return sigaction(SIGSYS, &action, NULL);
}

bool blocked_take(struct blocked_list *list)
{
    if (!atomic_load_explicit(&any, memory_order_relaxed))
        return false;
    atomic_store(&any, false);
    bool some = false;
    for (uint32_t i = 0; i <= LIMIT_BLOCKED_CALLS; i++) {
        uint32_t new_count = atomic_exchange(&counted[i].count, 0);
        uint32_t number = i < LIMIT_BLOCKED_CALLS ? atomic_load(&counted[i].claimed) - 1 : BLOCKED_OTHERS;
        blocked_add(list, number, new_count);
        some = some || new_count > 0;
    }
    return some;
}
