/* From the pieces of tokens to text that may be shown: whole UTF-8 characters only, nothing that may still become a
 * stop string, and nothing from a stop string on.
 *
 * Pure; one for each sequence. Pieces are any bytes: what is no UTF-8 comes out as U+FFFD. */
#ifndef BULKHEAD_ENGINE_TOKEN_TEXT_H
#define BULKHEAD_ENGINE_TOKEN_TEXT_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

/* Those of a request, and those of a chat template. */
#define TOKEN_STOPS_MAX (2 * LIMIT_STOPS)
/* The longest piece that is taken. What is held back is less than a stop string, or than a character. */
#define TOKEN_PIECE_BYTES 768u
/* What one piece can bring at most: itself and what was held back, each byte as the three of U+FFFD. */
#define TOKEN_TEXT_BYTES (3 * (TOKEN_PIECE_BYTES + LIMIT_STOP_BYTES + 4))
_Static_assert(TOKEN_TEXT_BYTES <= LIMIT_EVENT_TEXT_BYTES, "the text of one piece fits one event");

struct token_text {
    uint32_t n_stops;
    uint16_t stop_sizes[TOKEN_STOPS_MAX];
    char stops[TOKEN_STOPS_MAX][LIMIT_STOP_BYTES];
    bool stopped;
    size_t held; /* bytes of `pending` */
    char pending[TOKEN_PIECE_BYTES + LIMIT_STOP_BYTES + 4];
};

/* n_stops ≤ TOKEN_STOPS_MAX, each 1 .. LIMIT_STOP_BYTES bytes of UTF-8; copied. */
void token_text_init(struct token_text *t, const struct str *stops, uint32_t n_stops);
/* One more; left out when it is empty or too long, or there are too many. Before the first piece. */
void token_text_stop(struct token_text *t, struct str stop);
/* Takes a piece of at most TOKEN_PIECE_BYTES and writes what may be shown now to `ret_text` [TOKEN_TEXT_BYTES]; returns
 * its size. `last`: nothing will follow, so nothing is held back. Afterwards t->stopped tells whether a stop string was
 * there: then the text ends before the first of them, and no further piece may be given. */
size_t token_text_add(struct token_text *t, struct str piece, bool last, char ret_text[static TOKEN_TEXT_BYTES]);

#endif
