#include "base/random.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void random_bytes(void *data, size_t size)
{
    unsigned char *bytes = data;
    while (size > 0) {
        ssize_t got = getrandom(bytes, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            abort();
        bytes += got;
        size -= (size_t)got;
    }
}

uint64_t random_u64(void)
{
    uint64_t value;
    random_bytes(&value, sizeof value);
    return value;
}

void random_base62(char *text, size_t length)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t done = 0;
    while (done < length) {
        unsigned char pool[64];
        random_bytes(pool, sizeof pool);
        for (size_t i = 0; i < sizeof pool && done < length; i++)
            if (pool[i] < 248) /* 4 × 62: above that the low digits would be likelier */
                text[done++] = digits[pool[i] % 62];
    }
    text[length] = '\0';
}
