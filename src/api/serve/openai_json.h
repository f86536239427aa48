/* JSON of the OpenAI surface: parsing into an arena, and members with the refusals that OpenAI's clients know. */
#ifndef BULKHEAD_API_OPENAI_JSON_H
#define BULKHEAD_API_OPENAI_JSON_H

#include "api/serve/openai_codec.h"

#include <yyjson.h>

/* Sets the refusal and returns false. `param` NULL: none; `name` may be NULL. */
bool openai_refuse(struct openai_error *error, int code, const char *name, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
bool openai_refuse_memory(struct openai_error *error);

/* The root of a body, or NULL: refused, before it is parsed where it holds more values than a request of its kind has.
 * All of it lies in the arena. */
yyjson_val *openai_json_parse(enum openai_kind kind, struct str body, struct arena *arena, struct openai_error *error);
/* An allocator whose memory is the arena's; its address must last. */
void openai_json_alloc_init(yyjson_alc *alc, struct arena *arena);

static inline struct str openai_json_str(yyjson_val *value)
{
    return (struct str){unsafe_yyjson_get_str(value), unsafe_yyjson_get_len(value)};
}

/* What a value is, in words: "a string", "null". */
const char *openai_json_type(yyjson_val *value);
/* "Invalid type for 'param': expected WANTED, but got … instead." */
bool openai_refuse_type(struct openai_error *error, const char *param, const char *wanted, yyjson_val *value);

/* Refuses an object that has one of these members twice: another reader of the same bytes may take the other one.
 * `param` names the object; anything but an object is fine. */
must_check bool openai_once(yyjson_val *object, const struct str *names, size_t n, const char *param,
                            struct openai_error *error);
#define OPENAI_ONCE(object, param, error, ...)                                                                       \
    openai_once((object), (const struct str[]){__VA_ARGS__}, sizeof(struct str[]){__VA_ARGS__} / sizeof(struct str), \
                (param), (error))

must_check bool openai_take_bool(yyjson_val *value, const char *param, bool *ret, struct openai_error *error);
must_check bool openai_take_int(yyjson_val *value, const char *param, int64_t min, int64_t max, int64_t *ret,
                                struct openai_error *error);
must_check bool openai_take_number(yyjson_val *value, const char *param, double min, double max, float *ret,
                                   struct openai_error *error);
must_check bool openai_take_text(yyjson_val *value, const char *param, size_t bytes_max, struct str *ret,
                                 struct openai_error *error);

#endif
