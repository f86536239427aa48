/* Two layers of an image, the same bytes twice: refused in words, or a tree whose every name is valid, in order, behind
 * its folder, and whose links stay inside. */
#include "image/image_internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tree_node *folder_find(const struct tree *tree, struct str path)
{
    for (size_t i = 0; i < tree->n; i++)
        if (image_path_compare(tree->nodes[i]->path, path) == 0)
            return tree->nodes[i];
    return NULL;
}

static void node_look(const struct tree *tree, size_t i)
{
    const struct tree_node *node = tree->nodes[i];
    if (!image_path_valid(node->path) || (i > 0 && image_path_compare(tree->nodes[i - 1]->path, node->path) >= 0))
        abort();
    if ((node->type == IMAGE_LINK) != (node->target.size > 0) || (node->type != IMAGE_FILE && node->size > 0))
        abort();
    const char *slash = memrchr(node->path.data, '/', node->path.size);
    if (!slash || tree->n > 512) /* looking for each would take too long */
        return;
    const struct tree_node *folder =
        folder_find(tree, (struct str){node->path.data, (size_t)(slash - node->path.data)});
    if (!folder || folder->type != IMAGE_FOLDER)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tree tree = {.n = 0};
    struct error err = {0};
    int r = 0;
    for (uint32_t layer = 0; layer < 2 && r >= 0; layer++) {
        static struct tar t;
        struct tar_member m;
        t = (struct tar){.rest = {(const char *)data, size}};
        while ((r = tar_next(&t, &m, &err)) > 0) {
            volatile char last = m.content.size > 0 ? m.content.data[m.content.size - 1] : 0; /* the sanitizer looks */
            (void)last;
            r = tree_put(&tree, &m, layer, 128, &err);
            if (r < 0)
                break;
        }
    }
    if (r < 0 && (err.code != -ERROR_REFUSED || err.text[0] == '\0'))
        abort();
    for (size_t i = 0; r >= 0 && i < tree.n; i++)
        node_look(&tree, i);
    tree_done(&tree);
    return 0;
}
