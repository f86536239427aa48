/* The page of figures of a hostile gateway: whatever lies in it, the text of /metrics stays inside its page, is
 * printable ASCII in lines, and every sample has its name, labels and number. The input is the page's beginning and,
 * after it, the figures that came by message; the count of rows is the input's too. */
#undef NDEBUG
#include "control/control_internal.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void line_check(const char *line, size_t size)
{
    assert(size > 0);
    bool quoted = false;
    size_t blanks = 0;
    for (size_t i = 0; i < size; i++) {
        assert(line[i] >= ' ' && line[i] <= '~');
        if (line[0] == '#')
            continue;
        if (quoted && line[i] == '\\')
            i++;
        else if (line[i] == '"')
            quoted = !quoted;
        else if (!quoted && line[i] == ' ')
            blanks++;
    }
    assert(!quoted && (line[0] == '#' || blanks == 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bus_stats stats = {0};
    struct bus_metrics *page = calloc(1, sizeof *page); /* of exactly its size: ASan sees the byte beyond */
    assert(page);
    size_t stats_size = size < sizeof stats ? size : sizeof stats;
    if (stats_size > 0)
        memcpy(&stats, data, stats_size);
    size_t rest = size - stats_size < sizeof *page ? size - stats_size : sizeof *page;
    if (rest > 0)
        memcpy(page, data + stats_size, rest);
    struct buf text;
    buf_init(&text, 64 * MIB);
    control_metrics_write(page, &stats, &text);
    assert(!text.failed && text.size > 0 && text.data[text.size - 1] == '\n');
    for (size_t at = 0; at < text.size;) {
        size_t length = (size_t)((char *)memchr(text.data + at, '\n', text.size - at) - (text.data + at));
        line_check(text.data + at, length);
        at += length + 1;
    }
    buf_done(&text);
    free(page);
    return 0;
}
