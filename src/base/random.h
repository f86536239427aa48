/* Random bytes from the kernel (getrandom), and text made of them. Any role; may block only before the kernel's pool is
 * ready at boot. */
#ifndef BULKHEAD_BASE_RANDOM_H
#define BULKHEAD_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fills `data` with `size` bytes of a cryptographic quality. Aborts if the kernel refuses: nothing may go on with
 * predictable secrets. */
void random_bytes(void *data, size_t size);
uint64_t random_u64(void);

/* `length` characters of [0-9A-Za-z], each uniform (rejection sampling), and a NUL: text has length + 1 bytes.
 * 43 characters carry 256 bits (log2(62) = 5.954). */
void random_base62(char *text, size_t length);

#endif
