/* Micro benchmark of adapters in the llama engine: processor time of a token, one thread, while so many sequences
 * generate at once: of an adapter each in one decode call, of the same adapter, on the bare base, and of an adapter each
 * one after the other, as if they could not be computed together. The ways take turns for some rounds; the median and
 * the least of each count, since everything else on the machine only adds.
 *
 *   bench_adapters LIBRARY MODEL ADAPTER...     build/engines/libbulkhead-llama.so; of test/tools/gguf_random.py
 */
#include "base/clock.h"
#include "engine/engine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROUNDS = 9, STEPS = 24, ADAPTERS_MAX = 16 };
enum way { TOGETHER = 0, SAME, BARE, APART, WAYS };

static uint32_t kinds[ADAPTERS_MAX + 1], n_adapters;
static uint32_t n_tokens, steps_left;

static void require(bool what, const char *words)
{
    if (what)
        return;
    (void)fprintf(stderr, "bench_adapters: %s\n", words);
    exit(1);
}

static struct str mapped(const char *path, int *ret_fd)
{
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC);
    require(*ret_fd >= 0, path);
    size_t size = (size_t)lseek(*ret_fd, 0, SEEK_END);
    const char *data = mmap(NULL, size, PROT_READ, MAP_SHARED, *ret_fd, 0);
    require(data != MAP_FAILED, path);
    return (struct str){data, size};
}

static int on_event(void *ctx, uint64_t request_id, const struct generation_event *event)
{
    (void)ctx, (void)request_id;
    require(event->kind != GENERATION_EVENT_END, "a sequence ended");
    n_tokens += event->n_tokens;
    return 0;
}

static bool on_more(void *ctx)
{
    (void)ctx;
    return --steps_left > 0;
}

static void steps(struct engine *e, uint32_t kind, uint32_t n)
{
    struct engine_turn turn = {.budget_ns = 600 * NS_PER_S, .kind = kind};
    struct engine_token_sink sink = {.event = on_event, .more = on_more};
    struct error err = {0};
    steps_left = n;
    require(e->ops->token_step(e, &turn, &sink, &err) >= 0, err.text);
}

/* Nanoseconds of a token of `n` sequences, of the adapters from `first` on, or all of that one. */
static double measure(struct engine *e, uint32_t first, uint32_t n, bool same)
{
    int32_t tokens[48];
    for (int32_t i = 0; i < 48; i++)
        tokens[i] = 300 + 7 * i;
    for (uint32_t i = 0; i < n; i++) {
        struct generation g;
        struct error err = {0};
        generation_init(&g, GENERATION_COMPLETION);
        g.tokens = tokens;
        g.n_tokens = 48;
        g.max_tokens = 1000;
        g.flags = GENERATION_IGNORE_END | GENERATION_NO_CACHE;
        g.adapter = same ? first : first + i;
        require(e->ops->token_submit(e, 1 + i, 1, &g, &err) == 0, err.text);
    }
    for (n_tokens = 0; n_tokens < 4 * n;) /* all prompts are worked off */
        steps(e, kinds[first], 1);
    n_tokens = 0;
    uint64_t start_ns = clock_process_ns();
    steps(e, kinds[first], STEPS);
    uint64_t took_ns = clock_process_ns() - start_ns;
    e->ops->cancel(e, 0);
    require(n_tokens == n * STEPS, "not everybody got a token in each step");
    return (double)took_ns / n_tokens;
}

static double measure_way(struct engine *e, enum way way)
{
    double sum = 0;
    if (way != APART)
        return measure(e, way != BARE, n_adapters, way != TOGETHER);
    for (uint32_t i = 1; i <= n_adapters; i++)
        sum += measure(e, i, 1, true);
    return sum / n_adapters;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
    static const char *const names[WAYS] = {"together", "same adapter", "bare base", "one after the other"};
    static double took[WAYS][ROUNDS];
    struct error err = {0};
    struct engine *e = NULL;
    require(argc >= 4 && argc <= 3 + ADAPTERS_MAX, "usage: bench_adapters LIBRARY MODEL ADAPTER...");
    struct engine_options options = {.threads = 1, .memory_bytes = UINT64_C(1) << 30};
    options.library_fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    struct str model = mapped(argv[2], &options.model_fd);
    options.model = model.data;
    options.model_bytes = model.size;
    require(engine_llama.open(&options, &e, &err) == 0, err.text);
    n_adapters = (uint32_t)argc - 3;
    for (uint32_t i = 1; i <= n_adapters; i++) {
        int fd;
        struct str file = mapped(argv[2 + i], &fd);
        require(e->ops->adapter_load(e, i, fd, file, &kinds[i], &err) == 0, err.text);
        require(kinds[i] == kinds[1], "the adapters are not of one kind");
    }
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t way = 0; way < WAYS; way++)
            took[way][round] = measure_way(e, way) / 1e6;
    for (uint32_t way = 0; way < WAYS; way++) {
        qsort(took[way], ROUNDS, sizeof took[way][0], compare);
        (void)printf("{\"way\": \"%s\", \"sequences\": %u, \"token_ms\": %.3f, \"least_ms\": %.3f}\n", names[way],
                     n_adapters, took[way][ROUNDS / 2], took[way][0]);
    }
    e->ops->close(e);
    return 0;
}
