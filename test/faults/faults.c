#include "test/faults/faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void __sanitizer_print_stack_trace(void);

static struct faults_counter *counters; /* of this process's role; NULL: not under test */
static int32_t self;
static _Thread_local bool inside; /* a hit is being reported: what that allocates does not count */

bool faults_hit(enum faults_class class)
{
    if (!counters || inside)
        return false;
    struct faults_counter *c = &counters[class];
    uint64_t n = __atomic_load_n(&c->n, __ATOMIC_ACQUIRE);
    if (n == 0 || (c->pid != 0 && c->pid != self))
        return false;
    uint64_t call = __atomic_add_fetch(&c->calls, 1, __ATOMIC_RELAXED);
    if (call < n || call - n >= c->k)
        return false;
    (void)__atomic_add_fetch(&c->hits, 1, __ATOMIC_RELAXED);
    if (c->trace) {
        inside = true;
        __sanitizer_print_stack_trace();
        inside = false;
    }
    return true;
}

/* The next definition behind this program's: the sanitizers'. */
#define NEXT(name)                                     \
    static __typeof__(&name) next;                     \
    if (!next) {                                       \
        void *symbol = dlsym(RTLD_NEXT, #name);        \
        __builtin_memcpy(&next, &symbol, sizeof next); \
    }

/* LeakSanitizer's hook. It forgives what the loader allocates for the thread-locals of libraries that come later (such
 * as those of name look-ups), but with an allocator in between it says so on stderr, where only log lines may be. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

static bool no_memory(void)
{
    if (!faults_hit(FAULTS_MEMORY))
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    NEXT(malloc)
    return no_memory() ? NULL : next(size);
}

void *calloc(size_t count, size_t size)
{
    NEXT(calloc)
    return no_memory() ? NULL : next(count, size);
}

void *realloc(void *memory, size_t size)
{
    NEXT(realloc)
    return no_memory() ? NULL : next(memory, size);
}

void *reallocarray(void *memory, size_t count, size_t size)
{
    NEXT(reallocarray)
    return no_memory() ? NULL : next(memory, count, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    NEXT(aligned_alloc)
    return no_memory() ? NULL : next(alignment, size);
}

int posix_memalign(void **ret_memory, size_t alignment, size_t size)
{
    NEXT(posix_memalign)
    return no_memory() ? ENOMEM : next(ret_memory, alignment, size);
}

#undef strdup
#undef strndup
char *strdup(const char *text)
{
    NEXT(strdup)
    return no_memory() ? NULL : next(text);
}

char *strndup(const char *text, size_t size)
{
    NEXT(strndup)
    return no_memory() ? NULL : next(text, size);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    NEXT(mmap)
    return no_memory() ? MAP_FAILED : next(address, size, protection, flags, fd, offset);
}

/* Off_t has 64 bits: the function above is mmap64, as libraries call it too. The others call this one. */
void *faults_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) __asm__("mmap");
void *faults_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return mmap(address, size, protection, flags, fd, offset);
}

int memfd_create(const char *name, unsigned flags)
{
    NEXT(memfd_create)
    return no_memory() ? -1 : next(name, flags);
}

static int role_of(int argc, char **argv)
{
    static const char *const names[FAULTS_ROLE_COUNT] = {
        [FAULTS_SUPERVISOR] = "serve", [FAULTS_CONTROL] = "control", [FAULTS_GATEWAY] = "gateway"};
    if (argc == 1 && strcmp(argv[0], "bulkhead-worker") == 0)
        return FAULTS_WORKER;
    const char *name = argc == 3 && strcmp(argv[1], "role") == 0 ? argv[2] : argc > 1 ? argv[1] : "";
    for (int i = 0; i < FAULTS_ROLE_COUNT; i++)
        if (names[i] && strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

/* Before main: the roles still see the file then. glibc hands main's arguments over. */
__attribute__((constructor)) static void faults_setup(int argc, char **argv)
{
    const char *path = getenv("BULKHEAD_FAULTS");
    int role = role_of(argc, argv);
    int fd = path && role >= 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat info;
    if (fd < 0)
        return;
    if (fstat(fd, &info) == 0 && info.st_size == (off_t)sizeof(struct faults_page)) {
        struct faults_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) {
            self = getpid();
            counters = page->counters[role];
        }
    }
    close(fd);
}
