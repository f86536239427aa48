/* "did you mean": the smallest number of insertions, deletions, substitutions and swaps of neighbours. */
#include "resource/resource_internal.h"

enum { WORD_BYTES_MAX = 32, DISTANCE_MAX = 2 };

static unsigned char fold(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned least = a < b ? a : b;
    return least < c ? least : c;
}

/* Optimal string alignment distance, case ignored; both words at most WORD_BYTES_MAX. Three rows of the table suffice:
 * the present one, the one before, and the one before that for swaps. */
static unsigned distance(struct str a, struct str b)
{
    unsigned rows[3][WORD_BYTES_MAX + 1];
    for (size_t j = 0; j <= b.size; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a.size; i++) {
        unsigned *present = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];
        present[0] = (unsigned)i;
        for (size_t j = 1; j <= b.size; j++) {
            bool same = fold(a.data[i - 1]) == fold(b.data[j - 1]);
            present[j] = min3(before[j] + 1, present[j - 1] + 1, before[j - 1] + !same);
            if (i > 1 && j > 1 && fold(a.data[i - 1]) == fold(b.data[j - 2]) &&
                fold(a.data[i - 2]) == fold(b.data[j - 1]) && earlier[j - 2] + 1 < present[j])
                present[j] = earlier[j - 2] + 1;
        }
    }
    return rows[a.size % 3][b.size];
}

void resource_suggest_offer(struct resource_suggestion *s, struct str candidate)
{
    if (s->wanted.size > WORD_BYTES_MAX || candidate.size > WORD_BYTES_MAX)
        return;
    unsigned d = distance(s->wanted, candidate);
    /* of a short word not half may be wrong: "ab" is not nearly "cd" */
    if (d > DISTANCE_MAX || 2 * (size_t)d > candidate.size || (s->best.size > 0 && d >= s->distance))
        return;
    s->best = candidate;
    s->distance = d;
}
