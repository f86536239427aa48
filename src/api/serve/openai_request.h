/* What the files that read OpenAI requests share. */
#ifndef BULKHEAD_API_OPENAI_REQUEST_H
#define BULKHEAD_API_OPENAI_REQUEST_H

#include "api/serve/openai_json.h"

struct openai_reader {
    struct arena *arena;
    yyjson_alc alc; /* of the arena */
    struct openai_request *request;
    struct openai_error *error;
    const char *name; /* of the member that is being read */
    uint32_t best_of; /* 0: not given */
    bool stream_options;
    uint64_t seen;        /* members, by their index in the table */
    yyjson_val *tools;    /* checked; NULL: none */
    struct str tool_only; /* the function that tool_choice names; empty: none */
};

/* Takers of members, one each; `value` is not null. openai_prompt.c */
bool openai_take_messages(struct openai_reader *p, yyjson_val *value);
bool openai_take_prompts(struct openai_reader *p, yyjson_val *value);
/* openai_tools.c */
bool openai_take_response_format(struct openai_reader *p, yyjson_val *value);
bool openai_take_grammar(struct openai_reader *p, yyjson_val *value);
bool openai_take_tools(struct openai_reader *p, yyjson_val *value);
bool openai_take_tool_choice(struct openai_reader *p, yyjson_val *value);
/* Once all members were read: the tools as the generation has them. */
bool openai_tools_check(struct openai_reader *p);

/* A value as compact JSON, in the arena. */
must_check bool openai_json_write(struct openai_reader *p, yyjson_val *value, struct str *ret_text);

#endif
