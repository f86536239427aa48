/* The table of back-ends, in a file of its own: who starts workers at one level only need not link the others. */
#include "isolate/isolate.h"

static const struct isolate_ops *const back_ends[ISOLATE_LEVEL_COUNT] = {
    /* The same walls, around several models, and put up ahead. */
    [ISOLATE_SHARED] = &isolate_process,  [ISOLATE_POOL] = &isolate_process,
    [ISOLATE_PROCESS] = &isolate_process, [ISOLATE_CONTAINER] = &isolate_container,
    [ISOLATE_MICROVM] = &isolate_microvm,
};

const struct isolate_ops *isolate_find(enum isolate_level level)
{
    return (unsigned)level < ISOLATE_LEVEL_COUNT ? back_ends[level] : NULL;
}
