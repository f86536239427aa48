/* A whole image layout, a tar file or a packed folder: any bytes are refused in words, or give a root that opens, whose
 * every name lies inside of it. Digests keep changed layers out: fuzz_image_tar searches those. */
#include "image/image.h"
#include "image/image_root.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void root_read(int fd)
{
    struct error err = {0};
    struct image_root root;
    struct image_entry entry;
    off_t size = lseek(fd, 0, SEEK_END);
    void *bytes = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    if (bytes == MAP_FAILED || image_root_open((struct str){bytes, (size_t)size}, &root, &err) < 0)
        abort();
    int r;
    while ((r = image_root_next(&root, &entry, &err)) > 0)
        if (!image_path_valid(entry.path))
            abort();
    if (r < 0)
        abort();
    munmap(bytes, (size_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    int fd = memfd_create("root", MFD_CLOEXEC);
    if (fd < 0)
        return 0;
    int r = image_flatten((struct str){(const char *)data, size}, fd, &err);
    if (r == 0)
        root_read(fd);
    else if (err.code != -ERROR_REFUSED || err.text[0] == '\0')
        abort();
    close(fd);
    return 0;
}
