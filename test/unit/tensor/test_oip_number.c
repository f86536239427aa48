#include "tensor/oip_number.c"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char *fp32(float value)
{
    static char text[OIP_NUMBER_BYTES_MAX + 1];
    size_t size = oip_number_fp32(text, value);
    assert_true(size < OIP_NUMBER_BYTES_MAX);
    text[size] = '\0';
    return text;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        int64_t value;
        const char *text;
    } cases[] = {
        {0, "0"},
        {9, "9"},
        {10, "10"},
        {99, "99"},
        {100, "100"},
        {9999, "9999"},
        {10000, "10000"},
        {-1, "-1"},
        {-128, "-128"},
        {65535, "65535"},
        {4294967295, "4294967295"},
        {INT64_MAX, "9223372036854775807"},
        {INT64_MIN, "-9223372036854775808"},
    };
    char text[OIP_NUMBER_BYTES_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t size = oip_number_i64(text, cases[i].value);
        assert_int_equal(size, strlen(cases[i].text));
        assert_memory_equal(text, cases[i].text, size);
    }
    size_t size = oip_number_u64(text, UINT64_MAX);
    assert_int_equal(size, 20);
    assert_memory_equal(text, "18446744073709551615", 20);
}

/* 10^k with 64 significant bits rounded up, by exact long multiplication and division in 32-bit digits. */
static uint64_t power_bits(int k)
{
    enum { DIGITS = 16, ONE = 10 }; /* a fixed-point number; digit ONE is the units */
    uint64_t digits[DIGITS] = {0};
    bool lost = false;
    digits[ONE] = 1;
    for (int i = 0; i < k; i++) {
        uint64_t carry = 0;
        for (int d = 0; d < DIGITS; d++, carry >>= 32) {
            carry += digits[d] * 10;
            digits[d] = carry & UINT32_MAX;
        }
    }
    for (int i = 0; i > k; i--) {
        uint64_t rest = 0;
        for (int d = DIGITS - 1; d >= 0; d--) {
            rest = rest << 32 | digits[d];
            digits[d] = rest / 10;
            rest %= 10;
        }
        lost |= rest != 0;
    }
    uint64_t bits = 0;
    int taken = 0;
    for (int bit = DIGITS * 32 - 1; bit >= 0; bit--) {
        uint64_t one = digits[bit / 32] >> (bit % 32) & 1;
        if (taken == 0 && one == 0)
            continue;
        if (taken < 64) {
            bits = bits << 1 | one;
            taken++;
        } else {
            lost |= one != 0;
        }
    }
    assert_int_equal(taken, 64);
    return bits + lost;
}

static void test_table(void **state)
{
    (void)state;
    for (int k = POW10_MIN; k <= POW10_MAX; k++)
        assert_true(pow10_bits[k - POW10_MIN] == power_bits(k));
}

static void test_fp32_text(void **state)
{
    (void)state;
    assert_string_equal(fp32(0.0f), "0.0");
    assert_string_equal(fp32(-0.0f), "-0.0");
    assert_string_equal(fp32(1.0f), "1.0");
    assert_string_equal(fp32(-1.5f), "-1.5");
    assert_string_equal(fp32(0.1f), "0.1");
    assert_string_equal(fp32(0.3f), "0.3");
    assert_string_equal(fp32(100.0f), "100.0");
    assert_string_equal(fp32(16777216.0f), "16777216.0");
    assert_string_equal(fp32(123.456f), "123.456");
    assert_string_equal(fp32(0.0001f), "0.0001");
    assert_string_equal(fp32(0.00001f), "0.00001");
    assert_string_equal(fp32(0.000001f), "1e-6");
    assert_string_equal(fp32(1e15f), "1000000000000000.0");
    assert_string_equal(fp32(1e16f), "1e16");
    assert_string_equal(fp32(FLT_MAX), "3.4028235e38");
    assert_string_equal(fp32(-FLT_MAX), "-3.4028235e38");
    assert_string_equal(fp32(FLT_MIN), "1.1754944e-38");
    assert_string_equal(fp32(from_bits(1)), "1e-45");
    assert_string_equal(fp32(3.14159274f), "3.1415927");
}

/* The shortest text, 7.038531e-26, is FP64's middle between two FP32 numbers: reading it as FP64 first goes wrong. */
static void test_fp32_double_rounding(void **state)
{
    (void)state;
    float value = strtof("7.038531e-26", NULL);
    assert_true((float)strtod("7.038531e-26", NULL) != value);
    const char *text = fp32(value);
    assert_true((float)strtod(text, NULL) == value);
    assert_true(strtof(text, NULL) == value);
    text = fp32(-value);
    assert_true((float)strtod(text, NULL) == -value);
}

/* A prime stride through all bit patterns, and every number beside a power of two. */
static void check_fp32(uint32_t bits)
{
    float value = from_bits(bits);
    if (!isfinite(value))
        return;
    const char *text = fp32(value);
    float one = strtof(text, NULL), two = (float)strtod(text, NULL);
    if (memcmp(&one, &value, sizeof value) != 0 || memcmp(&two, &value, sizeof value) != 0)
        fail_msg("%08x printed as %s", bits, text);
}

static void test_fp32_round_trip(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 40503)
        check_fp32((uint32_t)bits);
    for (uint32_t exponent = 0; exponent < 256; exponent++)
        for (int near = -2; near <= 2; near++)
            check_fp32((exponent << 23) + (uint32_t)near);
}

/* No text with fewer digits reads back. */
static void test_fp32_shortest(void **state)
{
    (void)state;
    for (uint64_t bits = 0x00800000; bits < 0x7F800000; bits += 715827) {
        float value = from_bits((uint32_t)bits);
        char shorter[64];
        const char *text = fp32(value);
        int digits = 0;
        bool leading = true;
        for (const char *c = text; *c && *c != 'e'; c++) {
            leading &= *c == '0' || *c == '.';
            digits += !leading && *c != '.';
        }
        if (strstr(text, ".0") && !strchr(text, 'e'))
            continue; /* zeros before the point are no significant digits */
        if (digits < 2)
            continue;
        (void)snprintf(shorter, sizeof shorter, "%.*e", digits - 2, (double)value);
        assert_true(strtof(shorter, NULL) != value);
    }
}

static const char *half_text(enum tensor_dtype dtype, uint16_t bits)
{
    static char text[OIP_NUMBER_BYTES_MAX + 1];
    size_t size = oip_number_half(text, dtype, bits);
    assert_true(size < OIP_NUMBER_BYTES_MAX);
    text[size] = '\0';
    return text;
}

/* The value of 16 bits, spelled out from the definition. */
static double half_value(enum tensor_dtype dtype, uint32_t bits)
{
    int fraction = dtype == TENSOR_FP16 ? 10 : 7, bias = dtype == TENSOR_FP16 ? 15 : 127;
    int exponent = (int)(bits & 0x7FFF) >> fraction;
    double significand = bits & ((1u << fraction) - 1);
    double value = exponent == 0 ? ldexp(significand, 1 - bias - fraction)
                                 : ldexp(significand + (1 << fraction), exponent - bias - fraction);
    return bits & 0x8000 ? -value : value;
}

static uint16_t half_bits(enum tensor_dtype dtype, double number)
{
    uint16_t bits = 0xDEAD;
    if (!oip_half_from_fp64(dtype, number, &bits))
        return dtype == TENSOR_FP16 ? 0x7C00 : 0x7F80;
    return bits;
}

static void test_half_text(void **state)
{
    (void)state;
    assert_string_equal(half_text(TENSOR_FP16, 0x0000), "0.0");
    assert_string_equal(half_text(TENSOR_FP16, 0x8000), "-0.0");
    assert_string_equal(half_text(TENSOR_FP16, 0x3C00), "1.0");
    assert_string_equal(half_text(TENSOR_FP16, 0xC100), "-2.5");
    assert_string_equal(half_text(TENSOR_FP16, 0x2E66), "0.1");
    assert_string_equal(half_text(TENSOR_FP16, 0x7BFF), "65500.0");
    assert_string_equal(half_text(TENSOR_FP16, 0x0001), "6e-8");
    assert_string_equal(half_text(TENSOR_FP16, 0x0400), "0.00006104");
    assert_string_equal(half_text(TENSOR_BF16, 0x3F80), "1.0");
    assert_string_equal(half_text(TENSOR_BF16, 0xBDCD), "-0.1");
    assert_string_equal(half_text(TENSOR_BF16, 0x7F7F), "3.39e38");
    assert_string_equal(half_text(TENSOR_BF16, 0x0001), "9e-41");
}

/* Every number, every middle between two and what lies just beside it. */
static void test_half_rounding(void **state)
{
    (void)state;
    for (enum tensor_dtype d = TENSOR_FP16; d <= TENSOR_BF16; d += TENSOR_BF16 - TENSOR_FP16) {
        uint32_t infinity = d == TENSOR_FP16 ? 0x7C00 : 0x7F80;
        for (uint32_t bits = 0; bits < infinity; bits++) {
            double value = half_value(d, bits), next = half_value(d, bits + 1), middle = value + (next - value) / 2;
            uint32_t even = bits + (bits & 1);
            assert_int_equal(half_bits(d, value), bits);
            assert_int_equal(half_bits(d, -value), bits | 0x8000);
            assert_int_equal(half_bits(d, middle), even);
            assert_int_equal(half_bits(d, nextafter(middle, 0)), bits);
            assert_int_equal(half_bits(d, nextafter(middle, INFINITY)), bits + 1);
            if (even != infinity)
                assert_int_equal(half_bits(d, -middle), even | 0x8000);
        }
        assert_int_equal(half_bits(d, DBL_MAX), infinity);
        assert_int_equal(half_bits(d, 5e-324), 0);
        assert_int_equal(half_bits(d, -DBL_MIN), 0x8000);
        assert_false(oip_half_finite(d, (uint16_t)infinity));
        assert_false(oip_half_finite(d, 0xFFFF));
        assert_true(oip_half_finite(d, (uint16_t)(infinity - 1)));
    }
}

/* Digits that tell the number: without the zeros around them. */
static int significant_digits(const char *text)
{
    int digits = 0, zeros = 0;
    for (; *text && *text != 'e'; text++) {
        if (*text == '0' && digits > 0)
            zeros++;
        else if (*text >= '1' && *text <= '9') {
            digits += zeros + 1;
            zeros = 0;
        }
    }
    return digits;
}

/* All of them: what is printed reads back, also by way of FP32, and nothing shorter would. */
static void test_half_round_trip(void **state)
{
    (void)state;
    for (enum tensor_dtype d = TENSOR_FP16; d <= TENSOR_BF16; d += TENSOR_BF16 - TENSOR_FP16) {
        for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
            if (!oip_half_finite(d, (uint16_t)bits))
                continue;
            const char *text = half_text(d, (uint16_t)bits);
            if (half_bits(d, strtod(text, NULL)) != bits || half_bits(d, (double)strtof(text, NULL)) != bits)
                fail_msg("%04x printed as %s", bits, text);
            int digits = significant_digits(text);
            if (digits < 2)
                continue;
            char shorter[64];
            (void)snprintf(shorter, sizeof shorter, "%.*e", digits - 2, half_value(d, bits));
            if (half_bits(d, strtod(shorter, NULL)) == bits)
                fail_msg("%04x printed as %s, but %s is shorter", bits, text, shorter);
        }
    }
}

static void test_fp64(void **state)
{
    (void)state;
    static double values[OIP_FP64_CHUNK];
    static char text[OIP_FP64_CHUNK * OIP_NUMBER_BYTES_MAX + 1];
    uint64_t x = 88172645463325252u;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < OIP_FP64_CHUNK; i++) {
            do {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                memcpy(&values[i], &x, sizeof x);
            } while (!isfinite(values[i]));
        }
        values[0] = round % 2 ? -DBL_MAX : -DBL_MIN;
        values[1] = round % 2 ? -0.0 : 5e-324;
        size_t n = round == 0 ? 1 : OIP_FP64_CHUNK;
        size_t size = oip_numbers_fp64(text, values, n);
        assert_true(size > 0);
        text[size] = '\0';
        char *at = text;
        for (size_t i = 0; i < n; i++) {
            double back = strtod(at, &at);
            assert_memory_equal(&back, &values[i], sizeof back);
            assert_int_equal(*at, i + 1 < n ? ',' : '\0');
            at++;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),        cmocka_unit_test(test_table),
        cmocka_unit_test(test_fp32_text),       cmocka_unit_test(test_fp32_double_rounding),
        cmocka_unit_test(test_fp32_round_trip), cmocka_unit_test(test_fp32_shortest),
        cmocka_unit_test(test_half_text),       cmocka_unit_test(test_half_rounding),
        cmocka_unit_test(test_half_round_trip), cmocka_unit_test(test_fp64),
    };
    return cmocka_run_group_tests_name("oip_number", tests, NULL, NULL);
}
