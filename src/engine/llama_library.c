#include "engine/llama_library.h"

#include "base/memory.h"
#include "base/sanitized.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    struct llama_library functions;
    bool loaded;
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

#if !SANITIZED
/* ggml asks here for its buffers (cells, what a call needs in between, repacked weights), because a program's function
 * comes before the C library's; it has no way to be told what pages it should use. A step reads them from end to end.
 * What it gets is freed as usual. */
int posix_memalign(void **ret, size_t alignment, size_t size)
{
    bool large = library.loaded && size <= SIZE_MAX / 2 && memory_large_alignment(size) > alignment;
    void *p = large ? aligned_alloc(memory_large_alignment(size), memory_large_size(size)) : memalign(alignment, size);
    if (large)
        memory_large_advise(p, memory_large_size(size));
    *ret = p;
    return p ? 0 : ENOMEM;
}
#endif

static void discard_log(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)level, (void)text, (void)user_data;
}

void llama_text_clean(const char *text, char *clean, size_t capacity)
{
    size_t n = 0;
    for (const char *c = text ? text : ""; *c && n + 1 < capacity; c++) {
        if (*c == '/') /* the rest of a path */
            while (c[1] && c[1] != ' ' && c[1] != ':')
                c++;
        clean[n++] = *c >= ' ' && *c < 127 && *c != '/' ? *c : ' ';
    }
    clean[n] = '\0';
}

static int refuse(struct error *err, const char *what)
{
    char reason[200];
    llama_text_clean(dlerror(), reason, sizeof reason);
    return error_set(err, ERROR_UNSUPPORTED, "the server's llama.cpp library %s: %s", what, reason);
}

/* The variants of the kernels for x86-64 and arm64, as ggml's own loader knows them; the one that scores highest on
 * this processor is taken. A file that is missing, or is for another processor, counts nothing. */
static const char *const variants[] = {
    "x64",         "sse42",     "sandybridge", "ivybridge", "piledriver", "haswell",        "skylakex",  "cannonlake",
    "cascadelake", "icelake",   "cooperlake",  "zen4",      "alderlake",  "sapphirerapids", "armv8.0_1", "armv8.2_1",
    "armv8.2_2",   "armv8.2_3", "armv8.6_1",   "armv8.6_2", "armv9.2_1",  "armv9.2_2",
};

static int variant_score(const char *path)
{
    void *handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (!handle)
        return -1;
    int (*score)(void);
    *(void **)&score = dlsym(handle, "ggml_backend_score");
    int points = score ? score() : 0;
    (void)dlclose(handle);
    return points;
}

/* `folder` ends with '/', or is empty: then the loader looks where all libraries of a worker's root lie. */
static int kernels_load(const char *folder, struct error *err)
{
    char path[PATH_MAX], best[PATH_MAX] = "";
    int best_score = 0;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        if (snprintf(path, sizeof path, "%slibggml-cpu-%s.so", folder, variants[i]) >= (int)sizeof path)
            continue;
        int score = variant_score(path);
        if (score > best_score) {
            best_score = score;
            memcpy(best, path, sizeof best);
        }
    }
    if (best[0] == '\0' || !library.functions.ggml_backend_load(best))
        return error_set(err, ERROR_UNSUPPORTED,
                         "the server's llama.cpp library has no kernels that run on this processor");
    return 0;
}

static int functions_find(void *handle, struct error *err)
{
#define X(name)                                               \
    *(void **)&library.functions.name = dlsym(handle, #name); \
    if (!library.functions.name)                              \
        return refuse(err, "is not of the release that the server was built for");
    LLAMA_LIBRARY_FUNCTIONS(X)
#undef X
    return 0;
}

static int threadpool_find(struct error *err)
{
    struct llama_library *l = &library.functions;
    ggml_backend_dev_t cpu = l->ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t reg = cpu ? l->ggml_backend_dev_backend_reg(cpu) : NULL;
    if (!reg)
        return error_set(err, ERROR_UNSUPPORTED, "the server's llama.cpp library has no kernels for processors");
    *(void **)&l->threadpool_new = l->ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new");
    *(void **)&l->threadpool_free = l->ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_free");
    return l->threadpool_new && l->threadpool_free ? 0 : refuse(err, "has no thread pools");
}

/* By its real path where the worker sees the host's files: the libraries beside it are found from there. */
static int path_find(const struct engine_options *options, char path[static PATH_MAX], char folder[static PATH_MAX])
{
    folder[0] = '\0';
    if (options->library_path)
        return snprintf(path, PATH_MAX, "%s", options->library_path) < PATH_MAX ? 0 : -ERROR_LIMIT;
    char link[32];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", options->library_fd); /* fits any int */
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size <= 0)
        return -ERROR_IO;
    path[size] = '\0';
    memcpy(folder, path, (size_t)size + 1);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[1] = '\0';
    return 0;
}

static int library_load(const struct engine_options *options, struct error *err)
{
    char path[PATH_MAX], folder[PATH_MAX];
    if (options->library_fd < 0 && !options->library_path)
        return error_set(err, ERROR_UNSUPPORTED, "this server has no llama.cpp library");
    /* A failed assertion in the library would start a debugger. */
    if (setenv("GGML_NO_BACKTRACE", "1", 1) != 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = path_find(options, path, folder);
    if (r < 0)
        return error_set(err, ERROR_UNSUPPORTED, "the server's llama.cpp library cannot be found");
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* never closed: its kernels and exit handlers stay */
    if (!handle)
        return refuse(err, "cannot be loaded");
    r = functions_find(handle, err);
    if (r < 0)
        return r;
    library.functions.llama_log_set(discard_log, NULL);
    r = kernels_load(folder, err);
    if (r < 0)
        return r;
    library.functions.llama_backend_init();
    return threadpool_find(err);
}

int llama_library_open(const struct engine_options *options, const struct llama_library **ret_library,
                       struct error *err)
{
    int r = 0;
    pthread_mutex_lock(&library.lock);
    if (!library.loaded)
        r = library_load(options, err);
    library.loaded = library.loaded || r == 0;
    pthread_mutex_unlock(&library.lock);
    if (r == 0)
        *ret_library = &library.functions;
    return r;
}
