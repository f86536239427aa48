/* Looking into tables: all that src/filter_main.c links of this room. */
#include "base/filter.h"

#include <string.h>

size_t filter_table_count(const struct filter_table *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->n_rows; i++)
        count += t->rows[i].when.refused == 0;
    return count;
}

const struct filter_row *filter_table_find(const struct filter_table *t, const char *call)
{
    for (size_t i = 0; i < t->n_rows; i++)
        if (strcmp(t->rows[i].call, call) == 0)
            return &t->rows[i];
    return NULL;
}
