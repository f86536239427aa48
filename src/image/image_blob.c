#include "image/image_internal.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define FIRST_BYTES     (4 * MIB)
#define ZSTD_WINDOW_LOG 27 /* 128 MiB: what zstd itself takes unless it is told otherwise */

void blob_done(struct blob *b)
{
    free(b->owned);
    *b = (struct blob){0};
}

int blob_digest(struct str bytes, uint8_t ret_digest[static IMAGE_DIGEST_BYTES], struct error *err)
{
    unsigned size = 0;
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_Digest(bytes.data, bytes.size, digest, &size, EVP_sha256(), NULL) != 1 || size != IMAGE_DIGEST_BYTES)
        return error_set_default(err, ERROR_NO_MEMORY);
    memcpy(ret_digest, digest, IMAGE_DIGEST_BYTES);
    return 0;
}

int blob_digest_parse(struct str text, uint8_t ret_digest[static IMAGE_DIGEST_BYTES], struct error *err)
{
    static const char digits[] = "0123456789abcdef";
    if (!str_starts(text, STR("sha256:")) || text.size != 7 + (size_t)2 * IMAGE_DIGEST_BYTES)
        return error_set(err, ERROR_REFUSED, "a digest in it is not sha256: and 64 hexadecimal digits");
    for (size_t i = 0; i < IMAGE_DIGEST_BYTES; i++) {
        const char *high = memchr(digits, text.data[7 + 2 * i], 16), *low = memchr(digits, text.data[8 + 2 * i], 16);
        if (!high || !low)
            return error_set(err, ERROR_REFUSED, "a digest in it is not sha256: and 64 hexadecimal digits");
        ret_digest[i] = (uint8_t)((high - digits) << 4 | (low - digits));
    }
    return 0;
}

/* Twice the room, up to max. */
static bool grow(struct blob *b, size_t *capacity, size_t max)
{
    size_t wanted = *capacity < max / 2 ? *capacity * 2 : max;
    char *more = wanted > *capacity ? realloc(b->owned, wanted) : NULL;
    if (!more)
        return false;
    b->owned = more;
    *capacity = wanted;
    return true;
}

static int inflate_all(z_stream *z, struct str packed, size_t max, struct blob *b, struct error *err)
{
    size_t capacity = max < FIRST_BYTES ? max : FIRST_BYTES;
    b->owned = malloc(capacity);
    if (!b->owned)
        return error_set_default(err, ERROR_NO_MEMORY);
    for (int code = Z_OK;;) {
        if (z->avail_in == 0 && packed.size > 0) {
            size_t piece = packed.size < GIB ? packed.size : GIB;
            z->next_in = (Bytef *)(uintptr_t)packed.data; /* it only reads */
            z->avail_in = (uInt)piece;
            packed = str_skip(packed, piece);
        }
        if (code == Z_STREAM_END && z->avail_in == 0)
            return 0;
        if (code == Z_STREAM_END && inflateReset(z) != Z_OK) /* gzip files may stand one behind the other */
            return error_set_default(err, ERROR_NO_MEMORY);
        if (b->bytes.size == capacity && capacity == max)
            return error_set(err, ERROR_REFUSED, "a layer has more than %zu MiB unpacked", (size_t)(max / MIB));
        if (b->bytes.size == capacity && !grow(b, &capacity, max))
            return error_set_default(err, ERROR_NO_MEMORY);
        size_t room = capacity - b->bytes.size < GIB ? capacity - b->bytes.size : GIB;
        z->next_out = (Bytef *)b->owned + b->bytes.size;
        z->avail_out = (uInt)room;
        code = inflate(z, Z_NO_FLUSH);
        b->bytes.size += room - z->avail_out;
        if (code == Z_MEM_ERROR)
            return error_set_default(err, ERROR_NO_MEMORY);
        if (code != Z_OK && code != Z_STREAM_END && !(code == Z_BUF_ERROR && z->avail_out == 0))
            return error_set(err, ERROR_REFUSED, "a layer is not whole gzip data");
    }
}

static int blob_inflate(struct str packed, size_t max, struct blob *ret_blob, struct error *err)
{
    struct blob b = {0};
    z_stream z = {0};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) /* 16: gzip only */
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = inflate_all(&z, packed, max, &b, err);
    (void)inflateEnd(&z); /* fails only for a stream that is none */
    if (r < 0) {
        blob_done(&b);
        return r;
    }
    b.bytes.data = b.owned;
    *ret_blob = b;
    return 0;
}

static int unzstd_all(ZSTD_DStream *z, struct str packed, size_t max, struct blob *b, struct error *err)
{
    size_t capacity_max = max + 1; /* one more, to see what is too much */
    size_t capacity = capacity_max < FIRST_BYTES ? capacity_max : FIRST_BYTES, left = 1;
    ZSTD_inBuffer in = {packed.data, packed.size, 0};
    b->owned = malloc(capacity);
    if (!b->owned)
        return error_set_default(err, ERROR_NO_MEMORY);
    while (left > 0 || in.pos < in.size) { /* frames may stand one behind the other */
        if (b->bytes.size == capacity && !grow(b, &capacity, capacity_max))
            return error_set_default(err, ERROR_NO_MEMORY);
        ZSTD_outBuffer out = {b->owned, capacity, b->bytes.size};
        left = ZSTD_decompressStream(z, &out, &in);
        b->bytes.size = out.pos;
        if (ZSTD_isError(left) && ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation)
            return error_set_default(err, ERROR_NO_MEMORY);
        if (b->bytes.size > max)
            return error_set(err, ERROR_REFUSED, "a layer has more than %zu MiB unpacked", (size_t)(max / MIB));
        if (ZSTD_isError(left) || (left > 0 && in.pos == in.size && out.pos < out.size))
            return error_set(err, ERROR_REFUSED, "a layer is not whole zstd data");
    }
    return 0;
}

static int blob_unzstd(struct str packed, size_t max, struct blob *ret_blob, struct error *err)
{
    struct blob b = {0};
    ZSTD_DStream *z = ZSTD_createDStream();
    if (!z || ZSTD_isError(ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG))) {
        (void)ZSTD_freeDStream(z); /* accepts NULL, cannot fail */
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    int r = unzstd_all(z, packed, max, &b, err);
    (void)ZSTD_freeDStream(z); /* cannot fail */
    if (r < 0) {
        blob_done(&b);
        return r;
    }
    b.bytes.data = b.owned;
    *ret_blob = b;
    return 0;
}

int blob_unpack(enum blob_packing packing, struct str packed, size_t max, struct blob *ret_blob, struct error *err)
{
    switch (packing) {
    case BLOB_GZIP:
        return blob_inflate(packed, max, ret_blob, err);
    case BLOB_ZSTD:
        return blob_unzstd(packed, max, ret_blob, err);
    case BLOB_PLAIN:
        break;
    }
    *ret_blob = (struct blob){.bytes = packed};
    return 0;
}
