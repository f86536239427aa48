/* YAML in; what is accepted must be valid JSON, and must survive being written as YAML and read again. */
#include "cli/yaml.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    _buf_ struct buf json, yaml, again;
    buf_init(&json, 64 * KIB);
    buf_init(&yaml, MIB);
    buf_init(&again, MIB);
    if (cli_yaml_to_json((struct str){(const char *)data, size}, &json, &err) < 0) {
        assert(err.code < 0 && err.text[0]);
        return 0;
    }
    yyjson_doc *first = yyjson_read(json.data, json.size, 0);
    assert(first);
    cli_yaml_write(yyjson_doc_get_root(first), &yaml);
    /* the array around the documents may make it one level too deep */
    if (yaml.failed != -ERROR_LIMIT) {
        int rc = cli_yaml_to_json((struct str){yaml.data, yaml.size}, &again, &err);
        assert(rc == 0 || rc == -ERROR_INVALID_REQUEST);
        yyjson_doc *second = rc == 0 ? yyjson_read(again.data, again.size, 0) : NULL;
        if (second) {
            yyjson_val *value = yyjson_arr_get_first(yyjson_doc_get_root(second));
            assert(yyjson_equals(yyjson_doc_get_root(first), value));
        } else {
            assert(strstr(err.text, "nested too deeply"));
        }
        yyjson_doc_free(second);
    }
    yyjson_doc_free(first);
    return 0;
}
