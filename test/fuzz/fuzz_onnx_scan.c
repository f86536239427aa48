/* The scan of ONNX files, and the cleaning of texts that may come from one: no byte sequence may crash them, every
 * refusal says why, and no text that comes out holds what a terminal or a log line must not. */
#include "engine/onnx_error.h"
#include "engine/onnx_scan.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t capacity)
{
    size_t size = strlen(text);
    if (size >= capacity || (size > 0 && text[size - 1] == ' '))
        abort();
    for (size_t i = 0; i < size; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str input = {(const char *)data, size};
    struct error err = {0};
    if (onnx_scan(input, NULL, &err) < 0) {
        if (err.code != -ERROR_REFUSED || err.text[0] == '\0')
            abort();
        check_text(err.text, sizeof err.text);
    } else {
        (void)onnx_scan_declares_shape(input, STR("y"), true);
        (void)onnx_scan_declares_shape(input, STR("x"), false);
    }
    char text[256];
    size_t capacity = size > 0 && data[0] > 0 ? data[0] : sizeof text;
    onnx_text_clean(input, text, capacity);
    check_text(text, capacity);
    return 0;
}
