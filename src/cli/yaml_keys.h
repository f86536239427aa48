/* Which keys the mappings of a YAML stream have had, to refuse the second of a kind. Only yaml_read.c uses this. */
#ifndef BULKHEAD_CLI_YAML_KEYS_H
#define BULKHEAD_CLI_YAML_KEYS_H

#include "base/buf.h"

/* Zeroed = empty. One table for all mappings, so that neither many small nor one huge mapping costs more than its keys.
 */
struct yaml_keys {
    struct yaml_key *_slots; /* [_capacity], open addressing; power of two */
    size_t _n, _capacity;
    uint64_t _seed[2]; /* whoever writes the file does not know where a key lands */
};

void yaml_keys_done(struct yaml_keys *keys);

/* The key of mapping `serial` (> 0) whose JSON text is the end of `text`, from `start`; the text stays where it is
 * (by offset). 1: the mapping has it already; 0: new, and noted; -ERROR_NO_MEMORY. */
must_check int yaml_keys_note(struct yaml_keys *keys, uint32_t serial, const struct buf *text, size_t start);

#endif
