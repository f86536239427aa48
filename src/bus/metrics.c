#include "bus/metrics.h"

#include "base/error.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* F_SEAL_FUTURE_WRITE: the mapping that exists stays writable, no other can become so. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

int bus_metrics_new(struct bus_metrics **ret_metrics, int *ret_fd)
{
    _close_ int fd = memfd_create("bulkhead-metrics", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, sizeof(struct bus_metrics)) < 0)
        return -ERROR_NO_MEMORY;
    struct bus_metrics *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return -ERROR_NO_MEMORY;
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        bus_metrics_unmap(m);
        return -ERROR_IO;
    }
    memcpy(m->rows[0].tenant, "other", sizeof "other");
    memcpy(m->rows[0].model, "other", sizeof "other");
    __atomic_store_n(&m->n_rows, 1, __ATOMIC_RELEASE);
    *ret_metrics = m;
    *ret_fd = take_fd(&fd);
    return 0;
}

int bus_metrics_map(int fd, const struct bus_metrics **ret_metrics)
{
    int seals = fcntl(fd, F_GET_SEALS);
    off_t size = lseek(fd, 0, SEEK_END);
    if (seals < 0 || (seals & SEALS) != SEALS || size != (off_t)sizeof(struct bus_metrics))
        return -ERROR_PEER;
    const void *m = mmap(NULL, sizeof(struct bus_metrics), PROT_READ, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return -ERROR_NO_MEMORY;
    *ret_metrics = m;
    return 0;
}

void bus_metrics_unmap(const struct bus_metrics *m)
{
    if (m)
        (void)munmap((void *)(uintptr_t)m, sizeof *m); /* a mapping of ours: cannot fail */
}

struct bus_metrics_row *bus_metrics_row(struct bus_metrics *m, const char *tenant, const char *model)
{
    uint32_t n = m->n_rows < LIMIT_METRICS_ROWS + 1 ? m->n_rows : LIMIT_METRICS_ROWS + 1;
    for (uint32_t i = 0; i < n; i++) /* [0] too: a pair that is really named `other` must not show twice */
        if (strncmp(m->rows[i].tenant, tenant, LIMIT_NAME_BYTES) == 0 &&
            strncmp(m->rows[i].model, model, LIMIT_NAME_BYTES) == 0)
            return &m->rows[i];
    if (n == LIMIT_METRICS_ROWS + 1)
        return &m->rows[0];
    struct bus_metrics_row *row = &m->rows[n];
    (void)snprintf(row->tenant, sizeof row->tenant, "%s", tenant);
    (void)snprintf(row->model, sizeof row->model, "%s", model);
    __atomic_store_n(&m->n_rows, n + 1, __ATOMIC_RELEASE);
    return row;
}
