/* SipHash-1-3 against three others: vectors of key 00 01 … 0f over 00 01 …; CPython 3.11's hash() with a zero key; and
 * OpenSSL's SIPHASH with c-rounds 1, d-rounds 3, for every length and many keys. */
#include "base/hash.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct hash_seed counting = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};

static void vectors(void **state)
{
    (void)state;
    static const uint64_t expected[] = {
        UINT64_C(0xabac0158050fc4dc), UINT64_C(0xc9f49bf37d57ca93), UINT64_C(0x82cb9b024dc7d44d),
        UINT64_C(0x8bf80ab8e7ddf7fb), UINT64_C(0xcf75576088d38328), UINT64_C(0xdef9d52f49533b67),
        UINT64_C(0xc50d2b50c59f22a7), UINT64_C(0xd3927d989bb11140), UINT64_C(0x369095118d299a8e),
        UINT64_C(0x25a48eb36c063de4), UINT64_C(0x79de85ee92ff097f), UINT64_C(0x70c118c1f94dc352),
        UINT64_C(0x78a384b157b4d9a2), UINT64_C(0x306f760c1229ffa7), UINT64_C(0x605aa111c0f95d34),
        UINT64_C(0xd320d86d2a519956), UINT64_C(0xcc4fdd1a7d908b66), UINT64_C(0x9cf2689063dbd80c),
        UINT64_C(0x8ffc389cb473e63e), UINT64_C(0xf21f9de58d297d1c)};
    unsigned char data[20];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    for (size_t size = 0; size < 20; size++)
        assert_true(hash_bytes(counting, data, size) == expected[size]);
    assert_true(hash_bytes(counting, NULL, 0) == expected[0]);
}

static void as_cpython(void **state)
{
    (void)state;
    const struct hash_seed zero = {0};
    assert_true(hash_str(zero, STR("a")) == UINT64_C(0x407448d2b89b1813));
    assert_true(hash_str(zero, STR("bulkhead")) == UINT64_C(0x14534527647304da));
    assert_true(hash_str(zero, STR("The quick brown fox")) == UINT64_C(0x975e410714568333));
}

static uint64_t openssl_hash(struct hash_seed seed, const unsigned char *data, size_t size)
{
    unsigned char key[16], out[8];
    unsigned int c = 1, d = 3;
    size_t out_size = sizeof out, length = 0;
    memcpy(key, &seed.k0, 8);
    memcpy(key + 8, &seed.k1, 8);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &out_size),
                           OSSL_PARAM_construct_uint(OSSL_MAC_PARAM_C_ROUNDS, &c),
                           OSSL_PARAM_construct_uint(OSSL_MAC_PARAM_D_ROUNDS, &d), OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
    assert_int_equal(EVP_MAC_init(ctx, key, sizeof key, params), 1);
    assert_int_equal(EVP_MAC_update(ctx, data, size), 1);
    assert_int_equal(EVP_MAC_final(ctx, out, &length, sizeof out), 1);
    assert_int_equal(length, 8);
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(mac);
    uint64_t value;
    memcpy(&value, out, 8);
    return value;
}

static void as_openssl(void **state)
{
    (void)state;
    unsigned char data[520];
    struct hash_seed seed = counting;
    for (size_t size = 0; size < sizeof data; size++) {
        seed.k0 = seed.k0 * UINT64_C(6364136223846793005) + 1;
        seed.k1 ^= seed.k0 >> 7;
        for (size_t i = 0; i < size; i++)
            data[i] = (unsigned char)(seed.k0 >> (i % 57));
        size_t shift = size % 8; /* reads at any alignment */
        assert_true(hash_bytes(seed, data + shift, size - shift) == openssl_hash(seed, data + shift, size - shift));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(as_cpython),
        cmocka_unit_test(as_openssl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
