#include "image/image_root.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_BYTES_MAX 255u

static const char magic[16] = {'b', 'u', 'l', 'k', 'h', 'e', 'a', 'd', '-', 'r', 'o', 'o', 't', '-', '0', '1'};

struct row {
    uint64_t offset, size;
    uint16_t path_size, target_size;
    uint8_t type, executable;
    uint8_t zero[2];
};

_Static_assert(sizeof(struct image_head) == 128 && sizeof(struct row) == 24, "no padding");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are read as they lie");

static int damaged(struct error *err)
{
    return error_set(err, ERROR_REFUSED, "the unpacked image is not well-formed");
}

int image_path_compare(struct str a, struct str b)
{
    size_t size = a.size < b.size ? a.size : b.size;
    int order = size > 0 ? memcmp(a.data, b.data, size) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

bool image_path_valid(struct str path)
{
    size_t start = 0;
    if (path.size == 0 || path.size > LIMIT_IMAGE_PATH_BYTES)
        return false;
    for (size_t i = 0; i <= path.size; i++) {
        if (i < path.size && path.data[i] != '/') {
            if ((unsigned char)path.data[i] < ' ' || path.data[i] == 0x7f)
                return false;
            continue;
        }
        struct str part = {path.data + start, i - start};
        if (part.size == 0 || part.size > NAME_BYTES_MAX || str_equal(part, STR(".")) || str_equal(part, STR("..")))
            return false;
        start = i + 1;
    }
    return true;
}

int image_head_read(struct str bytes, struct image_head *ret_head, struct error *err)
{
    struct image_head head;
    static const uint8_t zeros[sizeof head._reserved];
    if (bytes.size < sizeof head)
        return damaged(err);
    memcpy(&head, bytes.data, sizeof head);
    if (memcmp(head.magic, magic, sizeof magic) != 0 || memcmp(head._reserved, zeros, sizeof zeros) != 0)
        return damaged(err);
    *ret_head = head;
    return 0;
}

int image_root_open(struct str bytes, struct image_root *ret_root, struct error *err)
{
    struct image_root root = {.bytes = bytes};
    int r = image_head_read(bytes, &root.head, err);
    if (r < 0)
        return r;
    const struct image_head *head = &root.head;
    if (head->n_entries > LIMIT_IMAGE_FILES || head->table_offset < sizeof *head || head->table_offset > bytes.size ||
        head->table_bytes != bytes.size - head->table_offset)
        return damaged(err);
    root.rest = str_skip(bytes, head->table_offset);
    root.n_left = head->n_entries;
    *ret_root = root;
    return 0;
}

int image_root_next(struct image_root *root, struct image_entry *ret_entry, struct error *err)
{
    struct row row;
    if (root->n_left == 0)
        return root->rest.size == 0 ? 0 : damaged(err);
    if (root->rest.size < sizeof row)
        return damaged(err);
    memcpy(&row, root->rest.data, sizeof row);
    struct str rest = str_skip(root->rest, sizeof row);
    if (row.type < IMAGE_FILE || row.type >= IMAGE_TYPE_COUNT || row.executable > 1 || row.zero[0] || row.zero[1] ||
        (size_t)row.path_size + row.target_size > rest.size)
        return damaged(err);
    struct image_entry e = {.type = (enum image_type)row.type,
                            .executable = row.executable,
                            .path = {rest.data, row.path_size},
                            .target = {rest.data + row.path_size, row.target_size}};
    if (!image_path_valid(e.path) || (root->last.size > 0 && image_path_compare(root->last, e.path) >= 0))
        return damaged(err);
    if ((e.type == IMAGE_LINK) != (e.target.size > 0) || e.target.size > LIMIT_IMAGE_PATH_BYTES ||
        memchr(e.target.data, '\0', e.target.size))
        return damaged(err);
    if (e.type == IMAGE_FILE) {
        if (row.offset < sizeof root->head || row.offset > root->head.table_offset ||
            row.size > root->head.table_offset - row.offset)
            return damaged(err);
        e.content = (struct str){root->bytes.data + row.offset, row.size};
    } else if (row.offset != 0 || row.size != 0) {
        return damaged(err);
    }
    root->rest = str_skip(rest, e.path.size + e.target.size);
    root->last = e.path;
    root->n_left--;
    *ret_entry = e;
    return 1;
}

/* ---- onto a file system ---- */

static int unpack_failed(struct error *err, const char *path)
{
    return error_set(err, ERROR_IO, "%.200s cannot be made: %s", path, strerrordesc_np(errno));
}

static int file_make(int folder, const char *path, const struct image_entry *e, struct error *err)
{
    _close_ int fd = openat(folder, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return unpack_failed(err, path);
    for (struct str rest = e->content; rest.size > 0;) {
        ssize_t n = write(fd, rest.data, rest.size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return unpack_failed(err, path);
        rest = str_skip(rest, (size_t)n);
    }
    return fchmod(fd, e->executable ? 0555 : 0444) == 0 ? 0 : unpack_failed(err, path);
}

static int entry_make(int folder, const struct image_entry *e, struct error *err)
{
    char path[LIMIT_IMAGE_PATH_BYTES + 1], target[LIMIT_IMAGE_PATH_BYTES + 1];
    if (str_copy(e->path, path, sizeof path) != 0)
        return damaged(err);
    switch (e->type) {
    case IMAGE_FILE:
        return file_make(folder, path, e, err);
    case IMAGE_FOLDER: /* the umask may have taken something away */
        return mkdirat(folder, path, 0755) == 0 && fchmodat(folder, path, 0755, 0) == 0 ? 0 : unpack_failed(err, path);
    case IMAGE_LINK:
        if (str_copy(e->target, target, sizeof target) != 0)
            return damaged(err);
        return symlinkat(target, folder, path) == 0 ? 0 : unpack_failed(err, path);
    case IMAGE_TYPE_COUNT:
        break;
    }
    return damaged(err);
}

int image_root_unpack(struct str bytes, int folder_fd, struct error *err)
{
    struct image_root root;
    struct image_entry entry;
    int r = image_root_open(bytes, &root, err);
    while (r >= 0 && (r = image_root_next(&root, &entry, err)) > 0)
        r = entry_make(folder_fd, &entry, err);
    return r;
}
