/*
 * The command line reads an answer: HTTP from whoever stands behind the socket, JSON in it, and prints a table or YAML.
 * What lands on the terminal may hold no control character but line feeds, those of C1 (U+0080 to U+009F) included,
 * whatever names and texts came. JSON is for programs: it is as RFC 8259 wants it, which has no escape for DEL and C1.
 *
 * Input: a byte that picks the kind to print, then the bytes that come from the socket.
 */
#include "wire/client.c"

#undef NDEBUG
#include "cli/cli_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_BYTES_MAX = 64 << 10 };

/* Runs `print` with stdout and stderr in memory and looks at what was written. */
static void printed_check(enum resource_kind kind, yyjson_val *root, enum cli_format format)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = stdout, *err = stderr, *memory = open_memstream(&text, &size);
    assert(memory);
    stdout = stderr = memory;
    yyjson_val *items = yyjson_obj_get(root, "items");
    if (format == CLI_TABLE && yyjson_is_arr(items))
        cli_print_table(kind, items);
    else if (format != CLI_TABLE)
        (void)cli_print_value(root, format);
    stdout = out;
    stderr = err;
    assert(fclose(memory) == 0);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        assert(c >= ' ' || c == '\n');
        assert(format == CLI_JSON || (c != 0x7f && (c != 0xC2 || (unsigned char)text[i + 1] >= 0xA0)));
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_BYTES_MAX)
        return -1;
    int pair[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    assert(send(pair[1], data + 1, size - 1, MSG_NOSIGNAL) == (ssize_t)size - 1);
    close(pair[1]);
    static const struct wire_client_request request = {.method = "GET", .timeout_ms = 1000, .body_fd = -1};
    struct error err = {0};
    struct buf body;
    buf_init(&body, 2 * INPUT_BYTES_MAX);
    struct client client = {.fd = pair[0], .request = &request, .body = &body, .err = &err};
    int r = receive_answer(&client);
    close(pair[0]);
    assert(r == 0 ? client.complete && client.status >= 200 : err.code == r && err.text[0]);
    yyjson_doc *doc = r == 0 ? yyjson_read(body.data, body.size, 0) : NULL;
    if (doc) {
        enum resource_kind kind = data[0] % RESOURCE_KIND_COUNT;
        for (int format = 0; format < CLI_FORMAT_COUNT; format++)
            printed_check(kind, yyjson_doc_get_root(doc), (enum cli_format)format);
    }
    yyjson_doc_free(doc);
    buf_done(&body);
    return 0;
}
