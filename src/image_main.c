/* bulkhead-image: wiring only. An ingest that unpacks a container image once, behind a worker's wall. Descriptor 3 is
 * the conversation with the supervisor. */
#include "base/filter.h"
#include "base/log.h"
#include "bus/bus.h"
#include "image/image.h"
#include "isolate/isolate_self.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define BUS_FD            3
#define CONFIG_TIMEOUT_MS 10000

/* LeakSanitizer's hook (only called in sanitizer builds): it cannot look into a locked-down process. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}

/* What the library looks for in the file system it looks for now. */
static int hash_prepare(void)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    return EVP_Digest("", 0, digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ERROR_NO_MEMORY;
}

static int root_send(struct str layout, struct error *err)
{
    struct bus_described body;
    _close_ int fd = memfd_create("bulkhead-root", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = image_flatten(layout, fd, err);
    if (r < 0)
        return r;
    off_t size = lseek(fd, 0, SEEK_END);
    if (size <= 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        return error_set_default(err, ERROR_IO);
    body.bytes = (uint64_t)size;
    return bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBED, &body, &fd, 1);
}

static int unpack(void)
{
    struct bus_message m;
    struct bus_describe_failed failed = {0};
    const void *layout = NULL;
    int r = hash_prepare();
    if (r == 0)
        r = bus_wait(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, CONFIG_TIMEOUT_MS, &m);
    if (r < 0)
        return r;
    uint64_t bytes = m.type == BUS_INGEST_CONFIG ? m.body.INGEST_CONFIG.model_bytes : 0;
    r = bytes > 0 ? bus_memfd_map(m.fds[0], bytes, &layout) : -ERROR_PEER;
    bus_message_done(&m);
    if (r >= 0)
        r = filter_install(&filter_ingest_run, &failed.error); /* before a byte of it is looked at */
    if (r < 0)
        return r;
    r = root_send((struct str){layout, bytes}, &failed.error);
    if (r >= 0)
        return 0;
    if (failed.error.code == 0)
        (void)error_set_default(&failed.error, r);
    return bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBE_FAILED, &failed, NULL, 0);
}

int main(void)
{
    struct error err = {0};
    log_setup("image", LOG_LEVEL_INFO);
    (void)prctl(PR_SET_NAME, "bulkhead-image"); /* executed by descriptor: the kernel's own name would be a number */
    int r = isolate_lockdown_self(&err);
    if (r == 0)
        r = filter_install(&filter_worker_load, &err);
    if (r == 0)
        r = unpack();
    if (r < 0) {
        log_error("image", "the image cannot be unpacked: %s", error_text(&err, r));
        return 1;
    }
    /* An end of our own could be seen before the answer is; the supervisor ends this process when it has it. */
    struct pollfd end = {.fd = BUS_FD, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
    return 0;
}
