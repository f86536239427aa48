#include "image/image_internal.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define WHITEOUT ".wh."
#define OPAQUE   ".wh..wh..opq"

void tree_done(struct tree *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->nodes[i]);
    free(t->nodes);
    *t = (struct tree){0};
}

static int refuse(struct error *err, struct str path, const char *what)
{
    return error_set(err, ERROR_REFUSED, "%.*s: %s", (int)(path.size < 160 ? path.size : 160), path.data, what);
}

/* Where the path is, or would be. */
static size_t place_of(const struct tree *t, struct str path)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image_path_compare(t->nodes[middle]->path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct tree_node *find(const struct tree *t, struct str path)
{
    size_t i = place_of(t, path);
    return i < t->n && str_equal(t->nodes[i]->path, path) ? t->nodes[i] : NULL;
}

static void remove_at(struct tree *t, size_t i)
{
    free(t->nodes[i]);
    t->n--;
    memmove(&t->nodes[i], &t->nodes[i + 1], (t->n - i) * sizeof *t->nodes);
}

static struct str folder_of(struct str path)
{
    const char *slash = path.size > 0 ? memrchr(path.data, '/', path.size) : NULL;
    return (struct str){path.data, slash ? (size_t)(slash - path.data) : 0};
}

/* All below the folder, "" being the whole, that layers under `layer` have. They lie together. */
static int below_remove(struct tree *t, struct str folder, uint32_t layer, struct error *err)
{
    char prefix[LIMIT_IMAGE_PATH_BYTES + 2];
    size_t size = folder.size;
    if (size >= sizeof prefix - 1)
        return refuse(err, folder, "its name is too long");
    memcpy(prefix, folder.data, size);
    if (size > 0)
        prefix[size++] = '/';
    size_t first = place_of(t, (struct str){prefix, size}), kept = first, i = first;
    for (; i < t->n && str_starts(t->nodes[i]->path, (struct str){prefix, size}); i++) {
        if (t->nodes[i]->layer < layer)
            free(t->nodes[i]);
        else
            t->nodes[kept++] = t->nodes[i];
    }
    memmove(&t->nodes[kept], &t->nodes[i], (t->n - i) * sizeof *t->nodes);
    t->n -= i - kept;
    return 0;
}

static int node_add(struct tree *t, const struct tree_node *what, struct error *err)
{
    if (t->n == LIMIT_IMAGE_FILES)
        return error_set(err, ERROR_REFUSED, "it has more than %u files", LIMIT_IMAGE_FILES);
    struct tree_node **nodes = memory_array_room(t->nodes, t->n, &t->capacity, sizeof *nodes);
    if (!nodes)
        return error_set_default(err, ERROR_NO_MEMORY);
    t->nodes = nodes;
    struct tree_node *node = malloc(sizeof *node + what->path.size + what->target.size);
    if (!node)
        return error_set_default(err, ERROR_NO_MEMORY);
    char *text = (char *)(node + 1);
    *node = *what;
    memcpy(text, what->path.data, what->path.size);
    if (what->target.size > 0)
        memcpy(text + what->path.size, what->target.data, what->target.size);
    node->path.data = text;
    node->target.data = text + what->path.size;
    size_t i = place_of(t, node->path);
    memmove(&t->nodes[i + 1], &t->nodes[i], (t->n - i) * sizeof *t->nodes);
    t->nodes[i] = node;
    t->n++;
    return 0;
}

/* Folders above a path that no layer names are made. What is there must be a folder: a name that leads through a link
 * is one that another could turn elsewhere. */
static int parents_add(struct tree *t, struct str path, uint32_t layer, struct error *err)
{
    for (size_t i = 1; i < path.size; i++) {
        if (path.data[i] != '/')
            continue;
        struct str above = {path.data, i};
        struct tree_node *node = find(t, above);
        if (node && node->type != IMAGE_FOLDER)
            return refuse(err, path, "it lies behind a link or a file, not in a folder");
        int r = node ? 0 : node_add(t, &(struct tree_node){.type = IMAGE_FOLDER, .layer = layer, .path = above}, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Does it stay in the root, wherever that is put? Absolute ones begin at the root. */
static bool target_stays(struct str path, struct str target)
{
    size_t depth = 0;
    for (size_t i = 0; target.data[0] != '/' && i < path.size; i++)
        depth += path.data[i] == '/';
    for (size_t start = 0, i = 0; i <= target.size; i++) {
        if (i < target.size && target.data[i] != '/')
            continue;
        struct str part = {target.data + start, i - start};
        start = i + 1;
        if (str_equal(part, STR("..")) && depth-- == 0)
            return false;
        depth += part.size > 0 && !str_equal(part, STR(".")) && !str_equal(part, STR(".."));
    }
    return true;
}

static bool first_part_is(struct str path, const char *const names[])
{
    const char *slash = memchr(path.data, '/', path.size);
    struct str first = {path.data, slash ? (size_t)(slash - path.data) : path.size};
    for (size_t i = 0; names[i]; i++) {
        if (str_equal(first, str_from(names[i])))
            return true;
    }
    return false;
}

/* ".wh.NAME" takes NAME of lower layers away, ".wh..wh..opq" all that is in its folder. */
static int whiteout(struct tree *t, struct str path, struct str name, uint32_t layer, struct error *err)
{
    struct str folder = folder_of(path);
    if (str_equal(name, STR(OPAQUE)))
        return below_remove(t, folder, layer, err);
    char text[LIMIT_IMAGE_PATH_BYTES + 1];
    struct str gone = str_skip(name, sizeof WHITEOUT - 1);
    size_t size = folder.size + (folder.size > 0);
    memcpy(text, path.data, size); /* shorter than path, which was checked */
    memcpy(text + size, gone.data, gone.size);
    struct str whole = {text, size + gone.size};
    if (!image_path_valid(whole))
        return refuse(err, path, "not a valid whiteout");
    int r = below_remove(t, whole, layer, err);
    size_t i = place_of(t, whole);
    if (r == 0 && i < t->n && str_equal(t->nodes[i]->path, whole) && t->nodes[i]->layer < layer)
        remove_at(t, i);
    return r;
}

/* What the member is in the root. */
static int node_of(const struct tree *t, const struct tar_member *m, struct tree_node *ret_node, struct error *err)
{
    const struct tree_node *other = NULL;
    struct str target = m->target;
    switch (m->type) {
    case TAR_FILE:
        ret_node->type = IMAGE_FILE;
        return 0;
    case TAR_FOLDER:
        ret_node->type = IMAGE_FOLDER;
        return 0;
    case TAR_LINK:
        if (target.size == 0 || memchr(target.data, '\0', target.size) || !target_stays(m->path, target))
            return refuse(err, m->path, "a link that leads out of the image");
        ret_node->type = IMAGE_LINK;
        ret_node->target = target;
        return 0;
    case TAR_HARD_LINK:
        while (str_starts(target, STR("./")))
            target = str_skip(target, 2);
        other = find(t, target);
        if (!other || other->type != IMAGE_FILE)
            return refuse(err, m->path, "a hard link to what is no file of the image");
        ret_node->type = IMAGE_FILE;
        ret_node->executable = other->executable;
        ret_node->offset = other->offset;
        ret_node->size = other->size;
        return 0;
    case TAR_OTHER:
        break;
    }
    return refuse(err, m->path, "a device, a pipe or something else that an image for models may not hold");
}

int tree_put(struct tree *t, const struct tar_member *m, uint32_t layer, uint64_t offset, struct error *err)
{
    static const char *const fresh[] = {"dev", "proc", "sys", "tmp", NULL}, *const ours[] = {"bulkhead", "engine",
                                                                                             NULL};
    if (m->path.size == 0)
        return 0; /* the root itself */
    if (m->path.data[0] == '/' || !image_path_valid(m->path))
        return refuse(err, m->path, "no name inside of a root: it is absolute, has \"..\", or control characters");
    if (first_part_is(m->path, fresh) || str_equal(m->path, STR("etc/ld.so.preload")))
        return 0;
    if (first_part_is(m->path, ours))
        return refuse(err, m->path, "/bulkhead and /engine are the server's, an image must not have them");
    const char *slash = memrchr(m->path.data, '/', m->path.size);
    struct str name = str_skip(m->path, slash ? (size_t)(slash - m->path.data) + 1 : 0);
    if (str_starts(name, STR(WHITEOUT)))
        return whiteout(t, m->path, name, layer, err);
    struct tree_node node = {
        .executable = m->executable, .layer = layer, .offset = offset, .size = m->content.size, .path = m->path};
    int r = node_of(t, m, &node, err);
    if (r == 0)
        r = parents_add(t, m->path, layer, err);
    if (r < 0)
        return r;
    if (node.type != IMAGE_FILE) {
        node.executable = false;
        node.offset = 0;
        node.size = 0;
    }
    struct tree_node *present = find(t, m->path);
    if (present && present->type == IMAGE_FOLDER && node.type == IMAGE_FOLDER) {
        present->layer = layer;
        return 0;
    }
    if (present && present->type == IMAGE_FOLDER)
        r = below_remove(t, m->path, UINT32_MAX, err);
    if (present && r == 0)
        remove_at(t, place_of(t, m->path));
    return r < 0 ? r : node_add(t, &node, err);
}
