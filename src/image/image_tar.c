#include "image/image_internal.h"

#include <string.h>

#define BLOCK 512u

/* POSIX.1-1988 (ustar); offsets of the fields that are read. */
enum { NAME = 0, MODE = 100, SIZE = 124, CHECKSUM = 148, TYPE = 156, LINKNAME = 157, MAGIC = 257, PREFIX = 345 };

static int refuse(struct error *err, const char *what)
{
    return error_set(err, ERROR_REFUSED, "a tar file in it is not well-formed: %s", what);
}

static struct str text_at(const char *block, size_t offset, size_t size)
{
    return (struct str){block + offset, strnlen(block + offset, size)};
}

/* Octal digits, or GNU's big-endian number with the first bit set. */
static bool number_read(const char *field, size_t size, uint64_t *ret_number)
{
    const unsigned char *bytes = (const unsigned char *)field;
    uint64_t number = 0;
    if (bytes[0] & 0x80) {
        for (size_t i = 0; i < size; i++) {
            if (number >> 55)
                return false;
            number = number << 8 | (i == 0 ? bytes[i] & 0x7fu : bytes[i]);
        }
        *ret_number = number;
        return true;
    }
    size_t i = 0;
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++) {
        if (number >> 60)
            return false;
        number = number << 3 | (uint64_t)(field[i] - '0');
    }
    *ret_number = number;
    return i == size || field[i] == '\0' || field[i] == ' ';
}

static bool checksum_fits(const char *block)
{
    uint64_t told, sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= CHECKSUM && i < CHECKSUM + 8 ? (unsigned char)' ' : (unsigned char)block[i];
    return number_read(block + CHECKSUM, 8, &told) && told == sum;
}

static bool is_zero(const char *block)
{
    for (size_t i = 0; i < BLOCK; i++) {
        if (block[i])
            return false;
    }
    return true;
}

struct extra { /* what a header before the member says of it */
    struct str path, target;
    uint64_t size;
    bool has_size;
};

/* Records "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
static int pax_read(struct str records, struct extra *extra, struct error *err)
{
    while (records.size > 0) {
        uint64_t length = 0;
        const char *space = memchr(records.data, ' ', records.size < 20 ? records.size : 20);
        size_t digits = space ? (size_t)(space - records.data) : 0;
        if (!space || str_to_u64((struct str){records.data, digits}, &length) != 0 || length > records.size ||
            length < digits + 3 || records.data[length - 1] != '\n')
            return refuse(err, "an extended header");
        struct str record = {space + 1, length - digits - 2};
        const char *equals = memchr(record.data, '=', record.size);
        if (!equals)
            return refuse(err, "an extended header");
        struct str key = {record.data, (size_t)(equals - record.data)};
        struct str value = {equals + 1, record.size - key.size - 1};
        if (str_equal(key, STR("path")))
            extra->path = value;
        else if (str_equal(key, STR("linkpath")))
            extra->target = value;
        else if (str_equal(key, STR("size"))) {
            if (str_to_u64(value, &extra->size) != 0)
                return refuse(err, "a size in an extended header");
            extra->has_size = true;
        }
        records = str_skip(records, length);
    }
    return 0;
}

static int content_take(struct tar *t, uint64_t size, struct str *ret_content, struct error *err)
{
    if (size > t->rest.size)
        return refuse(err, "it is cut off");
    *ret_content = (struct str){t->rest.data, size};
    uint64_t padded = (size + BLOCK - 1) / BLOCK * BLOCK; /* size ≤ the memory's: no overflow */
    t->rest = str_skip(t->rest, padded < t->rest.size ? padded : t->rest.size);
    return 0;
}

static enum tar_type type_of(char flag)
{
    switch (flag) {
    case '\0':
    case '0':
    case '7':
        return TAR_FILE;
    case '1':
        return TAR_HARD_LINK;
    case '2':
        return TAR_LINK;
    case '5':
        return TAR_FOLDER;
    default:
        return TAR_OTHER;
    }
}

/* The name of a member, kept in t: the block may say it in two parts. */
static int names_take(struct tar *t, const char *block, const struct extra *extra, struct tar_member *m,
                      struct error *err)
{
    struct str prefix = memcmp(block + MAGIC, "ustar\0", 6) == 0 ? text_at(block, PREFIX, 155) : (struct str){0};
    struct str name = extra->path.data ? extra->path : text_at(block, NAME, 100);
    struct str target = extra->target.data ? extra->target : text_at(block, LINKNAME, 100);
    size_t at = 0;
    if (!extra->path.data && prefix.size > 0) {
        memcpy(t->path, prefix.data, prefix.size); /* ≤ 155 */
        t->path[prefix.size] = '/';
        at = prefix.size + 1;
    }
    if (name.size >= sizeof t->path - at || target.size >= sizeof t->target)
        return error_set(err, ERROR_REFUSED, "a name in it has more than %u bytes", LIMIT_IMAGE_PATH_BYTES);
    memcpy(t->path + at, name.data, name.size);
    memcpy(t->target, target.data, target.size);
    t->target[target.size] = '\0';
    m->path = (struct str){t->path, at + name.size};
    m->target = (struct str){t->target, target.size};
    while (str_starts(m->path, STR("./")))
        m->path = str_skip(m->path, 2);
    if (m->path.size > 1 && m->path.data[m->path.size - 1] == '/')
        m->path.size--;
    if (str_equal(m->path, STR(".")))
        m->path.size = 0;
    return 0;
}

int tar_next(struct tar *t, struct tar_member *ret_member, struct error *err)
{
    struct extra extra = {0};
    for (;;) {
        if (t->rest.size == 0)
            return 0;
        if (t->rest.size < BLOCK)
            return refuse(err, "it is cut off");
        const char *block = t->rest.data;
        if (is_zero(block)) {
            t->rest = (struct str){0};
            return 0;
        }
        uint64_t size = 0, mode = 0;
        if (!checksum_fits(block) || !number_read(block + SIZE, 12, &size) || !number_read(block + MODE, 8, &mode))
            return refuse(err, "a header's checksum or numbers");
        if (++t->n_members > LIMIT_IMAGE_MEMBERS)
            return error_set(err, ERROR_REFUSED, "a tar file in it has more than %u members", LIMIT_IMAGE_MEMBERS);
        t->rest = str_skip(t->rest, BLOCK);
        char flag = block[TYPE];
        struct str content = {0};
        bool head = flag == 'L' || flag == 'K' || flag == 'x' || flag == 'g';
        if (!head && extra.has_size)
            size = extra.size;
        enum tar_type type = type_of(flag);
        if (head || type == TAR_FILE || type == TAR_OTHER) { /* others' sizes mean nothing */
            int r = content_take(t, size, &content, err);
            if (r < 0)
                return r;
        }
        int r = 0;
        if (flag == 'L')
            extra.path = (struct str){content.data, strnlen(content.data, content.size)};
        else if (flag == 'K')
            extra.target = (struct str){content.data, strnlen(content.data, content.size)};
        else if (flag == 'x')
            r = pax_read(content, &extra, err);
        if (r < 0)
            return r;
        if (head)
            continue;
        *ret_member = (struct tar_member){.type = type, .executable = (mode & 0111) != 0, .content = content};
        r = names_take(t, block, &extra, ret_member, err);
        return r < 0 ? r : 1;
    }
}
