#include "base/bundle.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u

static const char magic[16] = {'b', 'u', 'l', 'k', 'h', 'e', 'a', 'd', '-', 'f', 'o', 'l', 'd', 'e', 'r', '1'};

struct head {
    char magic[sizeof magic];
    uint64_t n_files;
};

struct row {
    uint64_t offset, size;
    char name[LIMIT_FOLDER_NAME_BYTES + 1];
};

_Static_assert(sizeof(struct row) == 272, "no padding");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are read as they lie");

static struct row row_at(struct str bytes, uint64_t index)
{
    struct row row;
    memcpy(&row, bytes.data + sizeof(struct head) + (size_t)index * sizeof row, sizeof row);
    return row;
}

static uint64_t page_up(uint64_t value)
{
    return (value + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
}

bool bundle_name_valid(struct str name)
{
    if (name.size == 0 || name.size > LIMIT_FOLDER_NAME_BYTES || !str_is_utf8(name))
        return false;
    size_t start = 0;
    for (size_t i = 0; i <= name.size; i++) {
        if (i < name.size && name.data[i] != '/') {
            if ((unsigned char)name.data[i] < ' ' || name.data[i] == 0x7f)
                return false;
            continue;
        }
        struct str part = {name.data + start, i - start};
        if (part.size == 0 || str_equal(part, STR(".")) || str_equal(part, STR("..")))
            return false;
        start = i + 1;
    }
    return true;
}

bool bundle_is(struct str bytes)
{
    return bytes.size >= sizeof magic && memcmp(bytes.data, magic, sizeof magic) == 0;
}

static int damaged(struct error *err)
{
    return error_set(err, ERROR_REFUSED, "the packed folder is not well-formed");
}

int bundle_open(struct str bytes, struct bundle *ret_bundle, struct error *err)
{
    struct head head;
    if (!bundle_is(bytes) || bytes.size < sizeof head || bytes.size > LIMIT_ARTIFACT_BYTES)
        return damaged(err);
    memcpy(&head, bytes.data, sizeof head);
    if (head.n_files == 0 || head.n_files > LIMIT_FOLDER_FILES ||
        head.n_files > (bytes.size - sizeof head) / sizeof(struct row))
        return damaged(err);
    uint64_t end = sizeof head + head.n_files * sizeof(struct row);
    struct row last = {0};
    for (uint64_t i = 0; i < head.n_files; i++) {
        struct row row = row_at(bytes, i);
        size_t length = strnlen(row.name, sizeof row.name);
        if (!bundle_name_valid((struct str){row.name, length}) || strcmp(last.name, row.name) >= 0)
            return damaged(err);
        /* end ≤ bytes.size always, so nothing here overflows */
        if (row.offset != page_up(end) || row.offset > bytes.size || row.size > bytes.size - row.offset)
            return damaged(err);
        end = row.offset + row.size;
        last = row;
    }
    if (end != bytes.size)
        return damaged(err);
    *ret_bundle = (struct bundle){bytes, (uint32_t)head.n_files};
    return 0;
}

void bundle_at(const struct bundle *b, uint32_t index, struct str *ret_name, struct str *ret_content)
{
    struct row row = row_at(b->bytes, index);
    const char *name = b->bytes.data + sizeof(struct head) + index * sizeof row + offsetof(struct row, name);
    *ret_name = (struct str){name, strlen(row.name)};
    *ret_content = (struct str){b->bytes.data + row.offset, (size_t)row.size};
}

bool bundle_find(const struct bundle *b, struct str name, struct str *ret_content)
{
    for (uint32_t i = 0; i < b->n_files; i++) {
        struct str other, content;
        bundle_at(b, i, &other, &content);
        if (str_equal(name, other)) {
            *ret_content = content;
            return true;
        }
    }
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct bundle_file *)a)->name, ((const struct bundle_file *)b)->name);
}

int bundle_layout(struct bundle_file *files, size_t n_files, struct buf *ret_head, uint64_t *ret_bytes)
{
    if (n_files == 0 || n_files > LIMIT_FOLDER_FILES)
        return -ERROR_LIMIT;
    struct head head = {.n_files = n_files};
    memcpy(head.magic, magic, sizeof magic);
    qsort(files, n_files, sizeof *files, by_name);
    buf_append(ret_head, &head, sizeof head);
    uint64_t end = sizeof head + n_files * sizeof(struct row);
    for (size_t i = 0; i < n_files; i++) {
        files[i].offset = page_up(end);
        if (files[i].offset > LIMIT_ARTIFACT_BYTES || files[i].size > LIMIT_ARTIFACT_BYTES - files[i].offset)
            return -ERROR_LIMIT;
        end = files[i].offset + files[i].size;
        struct row row = {.offset = files[i].offset, .size = files[i].size};
        memcpy(row.name, files[i].name, strnlen(files[i].name, sizeof row.name - 1));
        buf_append(ret_head, &row, sizeof row);
    }
    *ret_bytes = end;
    return ret_head->failed;
}
