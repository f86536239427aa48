/* How much there is in a JSON text, before anybody parses it: a parser takes ten times as long for a megabyte of small
 * values as for one of long strings, and the gateway has one thread for all.
 *
 * For every room; nothing here allocates or blocks. A text in which little can be is told by one quick pass; any other
 * is read up to the bound. It does not check that the text is JSON: what a parser reads before it refuses is within the
 * bound too. */
#ifndef BULKHEAD_BASE_JSON_H
#define BULKHEAD_BASE_JSON_H

#include "base/str.h"

/* Each at least 1. */
struct json_bound {
    size_t nodes;   /* strings (keys too), arrays and objects */
    size_t members; /* of all objects */
    size_t entries; /* of all arrays and objects; an empty one counts as one */
};

bool json_within(struct str text, const struct json_bound *bound);

#endif
