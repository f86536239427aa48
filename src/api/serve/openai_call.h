/* A request of the OpenAI surface from its body to its answer; what its files share. */
#ifndef BULKHEAD_API_OPENAI_CALL_H
#define BULKHEAD_API_OPENAI_CALL_H

#include "api/serve/openai.h"
#include "api/serve/openai_codec.h"

struct openai_vector {
    float *values; /* [n], of which n_here have come */
    uint32_t n, n_here;
};

struct openai_call {
    struct openai_request request;
    struct openai_answer answer;
    char id[48];
    uint32_t context, embedding; /* of the model */
    uint32_t n;                  /* generations */
    /* [n] each, in the arena; what they point at is on the heap */
    struct openai_choice *choices; /* text that is gathered */
    struct openai_vector *vectors; /* EMBEDDING */
    struct openai_usage *usage;
    uint64_t *offsets;     /* of probabilities that are streamed */
    struct buf out;        /* events, or the answer */
    struct buf tokens;     /* TOKENIZE: int32_t */
    size_t gathered_bytes; /* of all choices and vectors */
    bool told;             /* the client of a stream knows some of what the model said */
};

/* Makes the call's state; NULL: refused and answered. `call->request` is filled in. */
struct openai_call *openai_call_new(struct gateway_request *r, enum openai_kind kind);
/* Answers with a refusal. */
void openai_call_refuse(struct gateway_request *r, const struct openai_error *error);
/* The sum over prompts, each counted once, and all answers. */
struct openai_usage openai_call_usage(const struct openai_call *call);

/* openai_stream.c: an event into the stream, which begins with the first one. As gateway_generate.event. */
must_check int openai_stream_event(struct gateway_request *r, struct openai_call *call, uint32_t index,
                                   const struct generation_event *event);
void openai_stream_end(struct gateway_request *r, struct openai_call *call);
/* Tells the client of a stream what went wrong, and ends it. */
void openai_stream_fail(struct gateway_request *r, struct openai_call *call, int code, const struct error *err);

/* openai_gather.c: an event into what will be the answer; and the answer. */
must_check int openai_gather_event(struct openai_call *call, uint32_t index, const struct generation_event *event,
                                   struct error *err);
void openai_gather_end(struct gateway_request *r, struct openai_call *call);

#endif
