/* An unpacked root: any bytes are refused in words, or every entry has a valid name in order and lies inside of them.
 */
#include "image/image_root.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str input = {(const char *)data, size};
    struct image_root root;
    struct image_entry entry, last = {0};
    struct error err = {0};
    int r = image_root_open(input, &root, &err);
    while (r >= 0 && (r = image_root_next(&root, &entry, &err)) > 0) {
        if (!image_path_valid(entry.path) || (last.path.size > 0 && image_path_compare(last.path, entry.path) >= 0))
            abort();
        if ((entry.type == IMAGE_LINK) != (entry.target.size > 0))
            abort();
        if (entry.content.size > 0 &&
            (entry.content.data < input.data || entry.content.data + entry.content.size > input.data + input.size))
            abort();
        last = entry;
    }
    if (r < 0 && (err.code != -ERROR_REFUSED || err.text[0] == '\0'))
        abort();
    return 0;
}
