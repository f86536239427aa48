#include "cli/yaml_keys.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"

struct yaml_key {
    uint64_t hash;
    size_t start, size;
    uint32_t serial; /* 0 = free slot */
};

static void place(struct yaml_key *slots, size_t capacity, struct yaml_key key)
{
    size_t i = key.hash & (capacity - 1);
    while (slots[i].serial != 0)
        i = (i + 1) & (capacity - 1);
    slots[i] = key;
}

static int grow(struct yaml_keys *keys)
{
    size_t capacity = keys->_capacity ? keys->_capacity * 2 : 64;
    struct yaml_key *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return -ERROR_NO_MEMORY;
    if (keys->_capacity == 0)
        random_bytes(keys->_seed, sizeof keys->_seed);
    for (size_t i = 0; i < keys->_capacity; i++)
        if (keys->_slots[i].serial != 0)
            place(slots, capacity, keys->_slots[i]);
    free(keys->_slots);
    keys->_slots = slots;
    keys->_capacity = capacity;
    return 0;
}

int yaml_keys_note(struct yaml_keys *keys, uint32_t serial, const struct buf *text, size_t start)
{
    if (keys->_n * 4 >= keys->_capacity * 3 && grow(keys) < 0)
        return -ERROR_NO_MEMORY;
    struct str name = {text->data + start, text->size - start};
    struct hash_seed seed = {keys->_seed[0], keys->_seed[1] ^ serial};
    struct yaml_key key = {.hash = hash_str(seed, name), .start = start, .size = name.size, .serial = serial};
    size_t mask = keys->_capacity - 1;
    for (size_t i = key.hash & mask; keys->_slots[i].serial != 0; i = (i + 1) & mask) {
        const struct yaml_key *other = &keys->_slots[i];
        if (other->serial == serial && other->hash == key.hash &&
            str_equal(name, (struct str){text->data + other->start, other->size}))
            return 1;
    }
    place(keys->_slots, keys->_capacity, key);
    keys->_n++;
    return 0;
}

void yaml_keys_done(struct yaml_keys *keys)
{
    free(keys->_slots);
    *keys = (struct yaml_keys){0};
}
