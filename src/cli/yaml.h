/* YAML to JSON and back, for files that people write.
 *
 * Pure. YAML 1.2's core schema: plain null, true/false, integers and floats are what they look like, all else is a
 * string (`yes`, `256Mi`, `0ms`, dates). Tags, merge keys, complex keys and duplicate keys are refused. Aliases are
 * copied out, bounded by the output's maximum and the depth. Errors carry line:column. */
#ifndef BULKHEAD_CLI_YAML_H
#define BULKHEAD_CLI_YAML_H

#include "base/buf.h"
#include "base/error.h"
#include "base/limits.h"

#include <yyjson.h>

#define YAML_BYTES_MAX     (8 * MIB)
#define YAML_DEPTH_MAX     64u
#define YAML_DOCUMENTS_MAX LIMIT_APPLY_RESOURCES
#define YAML_ANCHORS_MAX   256u /* per document: looked up one by one */

/* Where a document of the array stood. */
struct yaml_place {
    uint32_t number; /* 1, 2, … in the file; empty documents count here but have no entry */
    uint32_t line;   /* of its first content */
};

/* Appends one JSON array with every non-empty document of `yaml`. The output may hold what ret_json_array's maximum
 * allows: more is -ERROR_LIMIT (aliases). -ERROR_INVALID_REQUEST with "line 3, column 7: …" for anything wrong.
 * Output undefined on failure. */
must_check int cli_yaml_to_json(struct str yaml, struct buf *ret_json_array, struct error *err);

/* The same, and where each document stood: ret_places[YAML_DOCUMENTS_MAX]. ret_n = their number. */
must_check int cli_yaml_to_json_places(struct str yaml, struct buf *ret_json_array, struct yaml_place *ret_places,
                                       uint32_t *ret_n, struct error *err);

/* Appends a value as YAML in block style, ending with a line break; reading it gives the same value. Deeper than
 * YAML_DEPTH_MAX: yaml->failed is set to -ERROR_LIMIT. */
void cli_yaml_write(yyjson_val *value, struct buf *yaml);

/* --- shared by both directions --- */

enum yaml_scalar { YAML_STRING = 0, YAML_NULL, YAML_TRUE, YAML_FALSE, YAML_INTEGER, YAML_FLOAT, YAML_NOT_FINITE };

/* What a plain scalar means in the core schema (YAML 1.2.2 §10.3.2). */
enum yaml_scalar cli_yaml_scalar(struct str plain);
/* Writes a scalar of kind YAML_INTEGER or YAML_FLOAT as a JSON number; -ERROR_LIMIT when it does not fit 64 bits (hex,
 * octal) or a double. */
must_check int cli_yaml_number(struct str plain, enum yaml_scalar kind, struct buf *json);

#endif
