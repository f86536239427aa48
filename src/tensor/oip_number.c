#include "tensor/oip_internal.h"

#include <assert.h>
#include <stdio.h>

static const char digit_pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                  "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                  "8081828384858687888990919293949596979899";

static unsigned count_digits(uint64_t value)
{
    unsigned n = 1;
    for (; value >= 10000; value /= 10000)
        n += 4;
    return n + (value >= 10) + (value >= 100) + (value >= 1000);
}

/* Exactly `n` digits, with leading zeros. */
static void put_digits(char *text, uint64_t value, unsigned n)
{
    for (; n >= 2; n -= 2, value /= 100)
        memcpy(text + n - 2, digit_pairs + value % 100 * 2, 2);
    if (n > 0)
        text[0] = (char)('0' + value % 10);
}

size_t oip_number_u64(char *text, uint64_t value)
{
    unsigned n = count_digits(value);
    put_digits(text, value, n);
    return n;
}

size_t oip_number_i64(char *text, int64_t value)
{
    if (value >= 0)
        return oip_number_u64(text, (uint64_t)value);
    text[0] = '-';
    return 1 + oip_number_u64(text + 1, -(uint64_t)value);
}

/* --- FP32, FP16, BF16: Raffaello Giulietti, "The Schubfach way to render doubles" (2021), with the numbers for
 * binary32; the narrower ones are the same with fewer bits. --- */

enum { POW10_MIN = -36, POW10_MAX = 45 }; /* FP32 needs -31 to 45; BF16 reaches a higher power of two */

/* ceil(10^k × 2^(63 - floor(log2(10^k)))) for k = POW10_MIN .. POW10_MAX: 10^k with 64 significant bits, rounded up.
 * test/unit/tensor/test_oip_number.c computes them again. */
static const uint64_t pow10_bits[POW10_MAX - POW10_MIN + 1] = {
    0xAA242499697392D3, 0xD4AD2DBFC3D07788, 0x84EC3C97DA624AB5, 0xA6274BBDD0FADD62, 0xCFB11EAD453994BB,
    0x81CEB32C4B43FCF5, 0xA2425FF75E14FC32, 0xCAD2F7F5359A3B3F, 0xFD87B5F28300CA0E, 0x9E74D1B791E07E49,
    0xC612062576589DDB, 0xF79687AED3EEC552, 0x9ABE14CD44753B53, 0xC16D9A0095928A28, 0xF1C90080BAF72CB2,
    0x971DA05074DA7BEF, 0xBCE5086492111AEB, 0xEC1E4A7DB69561A6, 0x9392EE8E921D5D08, 0xB877AA3236A4B44A,
    0xE69594BEC44DE15C, 0x901D7CF73AB0ACDA, 0xB424DC35095CD810, 0xE12E13424BB40E14, 0x8CBCCC096F5088CC,
    0xAFEBFF0BCB24AAFF, 0xDBE6FECEBDEDD5BF, 0x89705F4136B4A598, 0xABCC77118461CEFD, 0xD6BF94D5E57A42BD,
    0x8637BD05AF6C69B6, 0xA7C5AC471B478424, 0xD1B71758E219652C, 0x83126E978D4FDF3C, 0xA3D70A3D70A3D70B,
    0xCCCCCCCCCCCCCCCD, 0x8000000000000000, 0xA000000000000000, 0xC800000000000000, 0xFA00000000000000,
    0x9C40000000000000, 0xC350000000000000, 0xF424000000000000, 0x9896800000000000, 0xBEBC200000000000,
    0xEE6B280000000000, 0x9502F90000000000, 0xBA43B74000000000, 0xE8D4A51000000000, 0x9184E72A00000000,
    0xB5E620F480000000, 0xE35FA931A0000000, 0x8E1BC9BF04000000, 0xB1A2BC2EC5000000, 0xDE0B6B3A76400000,
    0x8AC7230489E80000, 0xAD78EBC5AC620000, 0xD8D726B7177A8000, 0x878678326EAC9000, 0xA968163F0A57B400,
    0xD3C21BCECCEDA100, 0x84595161401484A0, 0xA56FA5B99019A5C8, 0xCECB8F27F4200F3A, 0x813F3978F8940985,
    0xA18F07D736B90BE6, 0xC9F2C9CD04674EDF, 0xFC6F7C4045812297, 0x9DC5ADA82B70B59E, 0xC5371912364CE306,
    0xF684DF56C3E01BC7, 0x9A130B963A6C115D, 0xC097CE7BC90715B4, 0xF0BDC21ABB48DB21, 0x96769950B50D88F5,
    0xBC143FA4E250EB32, 0xEB194F8E1AE525FE, 0x92EFD1B8D0CF37BF, 0xB7ABC627050305AE, 0xE596B7B0C643C71A,
    0x8F7E32CE7BEA5C70, 0xB35DBF821AE4F38C,
};

struct decimal {
    uint32_t digits;
    int exponent; /* value = digits × 10^exponent */
};

static int floor_log2_pow10(int k)
{
    return (k * 1741647) >> 19;
}

__extension__ typedef unsigned __int128 uint128;

/* g × cp / 2^64, its last bit set when bits were lost ("round to odd"); g itself is up to one too large. */
static uint32_t round_to_odd(uint64_t g, uint32_t cp)
{
    uint128 product = (uint128)g * cp;
    uint32_t high = (uint32_t)(product >> 64);
    uint32_t low = (uint32_t)(product >> 32);
    return high | (low > 1);
}

/* The shortest decimal in the rounding interval of the positive c × 2^q; of several, the closest. `closer`: the next
 * smaller number is half as far away as the next greater one (c is a power of two). */
static struct decimal shortest(uint32_t c, int q, bool closer)
{
    int k = (q * 1262611 - (closer ? 524031 : 0)) >> 22; /* floor(log10 of the interval's width) */
    int h = q + floor_log2_pow10(-k) + 1;
    uint64_t g = pow10_bits[-k - POW10_MIN];
    uint32_t center = round_to_odd(g, (4 * c) << h);
    uint32_t odd = c & 1; /* the interval's ends belong to it when c is even: ties round there */
    uint32_t lower = round_to_odd(g, (4 * c - 2 + closer) << h) + odd;
    uint32_t upper = round_to_odd(g, (4 * c + 2) << h) - odd;

    uint32_t s = center / 4;
    if (s >= 10) {
        uint32_t tens = s / 10;
        bool down_inside = lower <= 40 * tens, up_inside = 40 * tens + 40 <= upper;
        if (down_inside != up_inside)
            return (struct decimal){tens + up_inside, k + 1};
    }
    bool down_inside = lower <= 4 * s, up_inside = 4 * s + 4 <= upper;
    if (down_inside != up_inside)
        return (struct decimal){s + up_inside, k};
    uint32_t middle = 4 * s + 2;
    bool up = center > middle || (center == middle && (s & 1));
    return (struct decimal){s + up, k};
}

/* As plain digits where that stays short, else with an exponent. */
static size_t put_decimal(char *text, struct decimal d)
{
    while (d.digits % 10 == 0) {
        d.digits /= 10;
        d.exponent++;
    }
    unsigned n = count_digits(d.digits);
    int point = (int)n + d.exponent; /* digits before the decimal point */
    if (point > 0 && point <= 16) {
        unsigned before = (unsigned)point;
        put_digits(text, d.digits, n);
        if (n <= before) {
            memset(text + n, '0', before - n);
            text[before] = '.';
            text[before + 1] = '0';
            return before + 2;
        }
        memmove(text + before + 1, text + before, n - before);
        text[before] = '.';
        return n + 1;
    }
    if (point <= 0 && point > -5) {
        size_t zeros = (size_t)-point;
        memcpy(text, "0.0000", 2 + zeros);
        put_digits(text + 2 + zeros, d.digits, n);
        return 2 + zeros + n;
    }
    put_digits(text + 1, d.digits, n);
    text[0] = text[1];
    size_t size = 1;
    if (n > 1) {
        text[1] = '.';
        size = n + 1;
    }
    text[size++] = 'e';
    return size + oip_number_i64(text + size, point - 1);
}

/* A reader that parses to FP64 and rounds again may end one off where the decimal lies next to the middle between two
 * FP32 numbers. `text` ends in NUL; value > 0. */
static bool reads_back_twice_rounded(struct decimal d, const char *text, float value)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const int n = (int)(sizeof powers / sizeof powers[0]);
    if (d.exponent <= 0 && d.exponent > -n) /* both exact in FP64, so one rounding, as in a correct parser */
        return (float)((double)d.digits / powers[-d.exponent]) == value;
    if (d.exponent > 0 && d.exponent < n)
        return (float)((double)d.digits * powers[d.exponent]) == value;
    return (float)strtod(text, NULL) == value;
}

size_t oip_number_fp32(char *text, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    size_t sign = bits >> 31;
    uint32_t exponent = bits >> 23 & 0xFF, fraction = bits & 0x7FFFFF;
    assert(exponent != 0xFF);
    text[0] = '-'; /* overwritten when positive */
    text += sign;
    if ((bits & 0x7FFFFFFF) == 0) {
        memcpy(text, "0.0", 3);
        return sign + 3;
    }
    struct decimal d = exponent == 0
                           ? shortest(fraction, -149, false)
                           : shortest(fraction | 0x800000, (int)exponent - 150, fraction == 0 && exponent > 1);
    size_t size = put_decimal(text, d);
    text[size] = '\0';
    if (!reads_back_twice_rounded(d, text, value < 0 ? -value : value)) {
        /* Nine digits come closer. The locale is "C": no program of ours calls setlocale. */
        int length = snprintf(text, OIP_NUMBER_BYTES_MAX - 1, "%.9g", (double)(value < 0 ? -value : value));
        assert(length > 0 && length < (int)OIP_NUMBER_BYTES_MAX - 1);
        size = (size_t)length;
    }
    return sign + size;
}

/* --- 16 bits --- */

/* What a datatype's 16 bits mean. */
struct half {
    unsigned fraction; /* bits; one more is implied */
    int exponent_min;  /* of the smallest normal number */
    uint32_t infinity;
};

static const struct half fp16 = {10, -14, 0x7C00}, bf16 = {7, -126, 0x7F80};

static const struct half *half_of(enum tensor_dtype dtype)
{
    assert(dtype == TENSOR_FP16 || dtype == TENSOR_BF16);
    return dtype == TENSOR_FP16 ? &fp16 : &bf16;
}

bool oip_half_finite(enum tensor_dtype dtype, uint16_t bits)
{
    return (bits & 0x7FFFu) < half_of(dtype)->infinity;
}

bool oip_half_from_fp64(enum tensor_dtype dtype, double number, uint16_t *ret_bits)
{
    const struct half *half = half_of(dtype);
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint32_t sign = (uint32_t)(bits >> 63) << 15;
    int exponent = (int)(bits >> 52 & 0x7FF) - 1023;
    uint64_t significand = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52; /* FP64's subnormals become 0 */
    int above = exponent > half->exponent_min ? exponent - half->exponent_min : 0;
    int drop = 52 - (int)half->fraction + (exponent < half->exponent_min ? half->exponent_min - exponent : 0);
    if (drop > 54) { /* below half of the smallest number */
        *ret_bits = (uint16_t)sign;
        return true;
    }
    uint64_t odd = significand >> drop & 1;
    uint64_t rounded = (significand + (UINT64_C(1) << (drop - 1)) - 1 + odd) >> drop; /* ties to even */
    uint64_t magnitude = ((uint64_t)above << half->fraction) + rounded; /* the implied bit counts the exponent up */
    if (magnitude >= half->infinity)
        return false;
    *ret_bits = (uint16_t)(sign | magnitude);
    return true;
}

size_t oip_number_half(char *text, enum tensor_dtype dtype, uint16_t bits)
{
    const struct half *half = half_of(dtype);
    size_t sign = bits >> 15;
    uint32_t exponent = (bits & 0x7FFFu) >> half->fraction;
    uint32_t implied = UINT32_C(1) << half->fraction, fraction = bits & (implied - 1);
    assert(oip_half_finite(dtype, bits));
    text[0] = '-'; /* overwritten when positive */
    text += sign;
    if (exponent == 0 && fraction == 0) {
        text[0] = text[2] = '0';
        text[1] = '.';
        return sign + 3;
    }
    int q = half->exponent_min - (int)half->fraction;
    struct decimal d = exponent == 0
                           ? shortest(fraction, q, false)
                           : shortest(fraction | implied, q + (int)exponent - 1, fraction == 0 && exponent > 1);
    return sign + put_decimal(text, d);
}

/* yyjson prints FP64 shortest and correctly rounded; it has no call for a single number, so they go by the array. */
size_t oip_numbers_fp64(char *text, const double *values, size_t n)
{
    /* 24 bytes for a value, 32 for its text, and the document. */
    char memory[OIP_FP64_CHUNK * (24 + 32 * 2) + 2048] __attribute__((aligned(16)));
    yyjson_alc alc;
    size_t size = 0;
    assert(n > 0 && n <= OIP_FP64_CHUNK);
    if (!yyjson_alc_pool_init(&alc, memory, sizeof memory))
        return 0;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(&alc);
    yyjson_mut_val *array = doc ? yyjson_mut_arr_with_double(doc, values, n) : NULL;
    char *written = array ? yyjson_mut_val_write_opts(array, YYJSON_WRITE_NOFLAG, &alc, &size, NULL) : NULL;
    if (!written || size < 3 || size - 2 > n * OIP_NUMBER_BYTES_MAX)
        return 0;
    memcpy(text, written + 1, size - 2); /* without the brackets */
    return size - 2;
}
