/* The model: from the disk into memory, its digest checked over the copy that the worker gets. The kernel hashes
 * (AF_ALG): it has the code, and for a program that trusts this kernel with everything else no better witness exists.
 */
#include "guest/guest_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISK         "/dev/vda"
#define DISK_WAIT_MS 5000
#define PIECE_BYTES  (1u << 20)
#define SHA256_BYTES 32
#define MODEL_SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

static int hash_open(int *ret_fd, struct error *err)
{
    struct sockaddr_alg address = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
    _close_ int algorithm = socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (algorithm < 0 || bind(algorithm, (struct sockaddr *)&address, sizeof address) != 0)
        return error_set(err, ERROR_UNSUPPORTED, "the guest's kernel has no SHA-256: %m");
    int fd = accept4(algorithm, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_UNSUPPORTED, "the guest's kernel does not hash: %m");
    *ret_fd = fd;
    return 0;
}

static int all(int fd, const char *data, size_t size, bool hash)
{
    while (size > 0) {
        ssize_t n = hash ? send(fd, data, size, MSG_MORE) : write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -ERROR_IO;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

int guest_model_copy(int from, uint64_t bytes, const uint8_t sha256[static 32], int *ret_fd, struct error *err)
{
    static char piece[PIECE_BYTES];
    _close_ int hash = -1;
    _close_ int to = memfd_create("model", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (to < 0)
        return error_set(err, ERROR_NO_MEMORY, "no memory for the model: %m");
    int r = hash_open(&hash, err);
    for (uint64_t done = 0; r == 0 && done < bytes;) {
        uint64_t left = bytes - done;
        ssize_t n = read(from, piece, left < sizeof piece ? (size_t)left : sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERROR_PEER, "the disk ends before the model does");
        /* What is hashed is what is kept: the piece, not the disk, which might say something else next time. */
        if (all(hash, piece, (size_t)n, true) != 0 || all(to, piece, (size_t)n, false) != 0)
            return error_set(err, ERROR_NO_MEMORY, "the model cannot be copied: %m");
        done += (uint64_t)n;
    }
    if (r != 0)
        return r;
    uint8_t digest[SHA256_BYTES];
    if (send(hash, NULL, 0, 0) < 0 || read(hash, digest, sizeof digest) != (ssize_t)sizeof digest)
        return error_set(err, ERROR_IO, "the model cannot be hashed: %m");
    if (memcmp(digest, sha256, sizeof digest) != 0)
        return error_set(err, ERROR_PEER, "the disk does not hold the model that was announced");
    if (fcntl(to, F_ADD_SEALS, MODEL_SEALS) != 0)
        return error_set(err, ERROR_IO, "the model cannot be sealed: %m");
    *ret_fd = take_fd(&to);
    return 0;
}

int guest_model_load(uint64_t bytes, const uint8_t sha256[static 32], int *ret_fd, struct error *err)
{
    _close_ int disk = -1;
    for (int waited_ms = 0; (disk = open(DISK, O_RDONLY | O_CLOEXEC)) < 0; waited_ms += 10) {
        if (waited_ms >= DISK_WAIT_MS)
            return error_set(err, ERROR_IO, "the disk does not appear: %m");
        (void)poll(NULL, 0, 10);
    }
    return guest_model_copy(disk, bytes, sha256, ret_fd, err);
}
