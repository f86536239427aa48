/* What the files of the OIP codec share: parsing with bounded memory, members of objects, data arrays, numbers as text.
 * Gateway only. */
#ifndef BULKHEAD_TENSOR_OIP_INTERNAL_H
#define BULKHEAD_TENSOR_OIP_INTERNAL_H

#include "tensor/oip.h"

#include <yyjson.h>

/* --- Memory and parsing (oip_json.c) --- */

/* JSON up to about 600 bytes is parsed without touching the heap: yyjson asks at most 13 bytes for each of them. */
#define OIP_POOL_BYTES ((size_t)8192)

/* A parsed text and its memory. Lives on the decoder's stack; must not be moved. */
struct oip_json {
    yyjson_doc *doc;
    /* private */
    struct arena *_arena; /* its maximum also bounds what the parser takes from the heap */
    size_t _heap_bytes;
    yyjson_alc _alc;
    char _pool[OIP_POOL_BYTES] __attribute__((aligned(16)));
};

/* Parses. On success oip_json_done must be called; on failure there is nothing to release. */
must_check int oip_json_parse(struct oip_json *json, struct str text, struct arena *arena, struct error *err);
void oip_json_done(struct oip_json *json);

/* `size` bytes from the arena, as long as the request's memory and the parser's stay below its maximum together. */
void *oip_json_alloc(struct oip_json *json, size_t size);

enum oip_kind { OIP_STRING, OIP_ARRAY, OIP_OBJECT, OIP_BOOL, OIP_COUNT };

/* A member that an object may have. OIP_COUNT: an integer from 0 to 2^63-1. */
struct oip_member {
    struct str name;
    enum oip_kind kind;
};

#define OIP_MEMBERS_MAX 8

/* A place in a request; put into words only when a message needs it. */
struct oip_where {
    const char *kind; /* "input", "output"; NULL: the request itself */
    uint32_t index;
    struct str name; /* size 0: not known yet */
};

/* Finds the members of `object` that the table names: values[i] is that of table[i], or NULL. Refuses a known member
 * that is there twice or has the wrong kind, and an unknown one unless `open`. */
must_check int oip_json_members(yyjson_val *object, const struct oip_member *table, size_t n, bool open,
                                const struct oip_where *where, yyjson_val **values, struct error *err);

/* --- Text for messages (oip_json.c) --- */

/* A name of someone else's, cut at a character's border to fit a message. */
struct str oip_name_shown(struct str name);
#define OIP_NAME_SHOWN_BYTES 80

/* `input "x"`, `inputs[3]` or `the request`. */
#define OIP_WHERE_BYTES (OIP_NAME_SHOWN_BYTES + 24)
const char *oip_where_text(const struct oip_where *where, char text[static OIP_WHERE_BYTES]);
#define OIP_WHERE(where) oip_where_text((where), (char[OIP_WHERE_BYTES]){""})

/* --- Data arrays (oip_data.c) --- */

/* Decodes `data`, flat or nested, into the binary form of view->dtype and view->shape; sets view->data and view->size.
 * The memory comes from the arena. Texts do not name the tensor. */
must_check int oip_data_decode(struct oip_json *json, yyjson_val *data, struct tensor_view *view, struct error *err);

/* --- Numbers as text (oip_number.c): each returns the bytes written, no NUL --- */

#define OIP_NUMBER_BYTES_MAX 32u

size_t oip_number_u64(char *text, uint64_t value);
size_t oip_number_i64(char *text, int64_t value);
/* The shortest text that reads back as the same bits, be it read as FP32 or as FP64 and then rounded. Finite only. */
size_t oip_number_fp32(char *text, float value);
/* FP16 and BF16, named by `dtype`. The shortest text that reads back as the same bits, be it read as FP64 or as FP32
 * and then rounded. Finite only. */
size_t oip_number_half(char *text, enum tensor_dtype dtype, uint16_t bits);
bool oip_half_finite(enum tensor_dtype dtype, uint16_t bits);
/* Rounds a finite number to the nearest, ties to even. False: it would become infinite. */
must_check bool oip_half_from_fp64(enum tensor_dtype dtype, double number, uint16_t *ret_bits);
/* Writes values[n] to `text`, separated by commas. n ≤ OIP_FP64_CHUNK; `text` has n × OIP_NUMBER_BYTES_MAX bytes. All
 * finite. 0 on failure (no memory: impossible with the fixed pool). */
#define OIP_FP64_CHUNK 128u
size_t oip_numbers_fp64(char *text, const double *values, size_t n);

#endif
