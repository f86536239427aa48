/* Tables for people: columns per kind, by paths into the documents. */
#include "base/clock.h"
#include "cli_internal.h"

#include <stdlib.h>
#include <time.h>

enum column_form { COLUMN_TEXT = 0, COLUMN_AGE, COLUMN_SHORT /* first 12 characters */, COLUMN_BYTES };

struct column {
    const char *heading;
    const char *path;   /* of the value; NULL ends the list */
    const char *second; /* shown behind a dash ("0-2"); NULL */
    enum column_form form;
};

static const struct column columns_tenant[] = {{"NAME", "metadata.name"},
                                               {"WEIGHT", "spec.weight"},
                                               {"ISOLATION", "spec.isolation.minimum"},
                                               {"REQUESTS/MIN", "spec.quota.requestsPerMinute"},
                                               {"QUEUE", "spec.quota.queueDepth"},
                                               {"AGE", "status.created", NULL, COLUMN_AGE},
                                               {NULL}};
static const struct column columns_model[] = {{"TENANT", "metadata.tenant"},
                                              {"NAME", "metadata.name"},
                                              {"ENGINE", "spec.engine"},
                                              {"LEVEL", "spec.isolation.level"},
                                              {"CPU", "spec.resources.cpu"},
                                              {"MEMORY", "spec.resources.memory", NULL, COLUMN_BYTES},
                                              {"VERSION", "status.version"},
                                              {"REPLICAS", "spec.replicas.min", "spec.replicas.max"},
                                              {"DIGEST", "status.digest", NULL, COLUMN_SHORT},
                                              {"AGE", "status.created", NULL, COLUMN_AGE},
                                              {NULL}};
static const struct column columns_grant[] = {{"TENANT", "metadata.tenant"},
                                              {"NAME", "metadata.name"},
                                              {"MODEL", "spec.model"},
                                              {"TENANTS", "spec.tenants"},
                                              {"SHARED BATCH", "spec.sharedBatch"},
                                              {"AGE", "status.created", NULL, COLUMN_AGE},
                                              {NULL}};
static const struct column columns_adapter[] = {{"TENANT", "metadata.tenant"},
                                                {"NAME", "metadata.name"},
                                                {"BASE", "spec.base"},
                                                {"BYTES", "status.bytes"},
                                                {"DIGEST", "status.digest", NULL, COLUMN_SHORT},
                                                {"USABLE", "status.usable"},
                                                {"REPLICAS", "status.replicas"},
                                                {"AGE", "status.created", NULL, COLUMN_AGE},
                                                {NULL}};
static const struct column columns_version[] = {{"TENANT", "metadata.tenant"},
                                                {"MODEL", "metadata.name"},
                                                {"VERSION", "status.number"},
                                                {"NEWEST", "status.newest"},
                                                {"ENGINE", "spec.engine"},
                                                {"LEVEL", "spec.isolation.level"},
                                                {"BYTES", "status.bytes"},
                                                {"DIGEST", "status.digest", NULL, COLUMN_SHORT},
                                                {"AGE", "status.created", NULL, COLUMN_AGE},
                                                {NULL}};
static const struct column columns_replica[] = {{"TENANT", "metadata.tenant"},
                                                {"MODEL", "status.model"},
                                                {"VERSION", "status.version"},
                                                {"NAME", "metadata.name"},
                                                {"STATE", "status.state"},
                                                {"LEVEL", "status.level"},
                                                {"RESTARTS", "status.restarts"},
                                                {"AGE", "status.started", NULL, COLUMN_AGE},
                                                {NULL}};
static const struct column columns_key[] = {{"ID", "status.id"},
                                            {"TENANT", "metadata.tenant"},
                                            {"NAME", "metadata.name"},
                                            {"AGE", "status.created", NULL, COLUMN_AGE},
                                            {NULL}};

static const struct column columns_device[] = {{"NAME", "metadata.name"},
                                               {"SLOTS", "status.slots"},
                                               {"USED", "status.used"},
                                               {"QUEUED", "status.queued"},
                                               {"BUSY%", "status.busyPercent"},
                                               {"TENANTS_S", "status.seconds.tenants"},
                                               {"SYSTEM_S", "status.seconds.system"},
                                               {"IDLE_S", "status.seconds.idle"},
                                               {NULL}};

static const struct column *const columns_of[RESOURCE_KIND_COUNT] = {
    [RESOURCE_TENANT] = columns_tenant, [RESOURCE_MODEL] = columns_model,     [RESOURCE_VERSION] = columns_version,
    [RESOURCE_GRANT] = columns_grant,   [RESOURCE_ADAPTER] = columns_adapter, [RESOURCE_REPLICA] = columns_replica,
    [RESOURCE_KEY] = columns_key,       [RESOURCE_DEVICE] = columns_device};

static yyjson_val *value_at(yyjson_val *value, const char *path)
{
    while (value && *path) {
        size_t length = strcspn(path, ".");
        value = yyjson_obj_getn(value, path, length);
        path += length + (path[length] == '.');
    }
    return value;
}

/* "3s", "12m", "5h", "9d" since an RFC 3339 time. */
static void append_age(struct buf *cell, const char *text)
{
    struct tm parts = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    time_t then = end ? timegm(&parts) : (time_t)-1;
    if (then == (time_t)-1) {
        buf_append_text(cell, text);
        return;
    }
    int64_t seconds = (int64_t)(clock_wall_ms() / 1000) - (int64_t)then;
    if (seconds < 0)
        seconds = 0;
    if (seconds < 120)
        buf_format(cell, "%llds", (long long)seconds);
    else if (seconds < 2 * 3600)
        buf_format(cell, "%lldm", (long long)(seconds / 60));
    else if (seconds < 48 * 3600)
        buf_format(cell, "%lldh", (long long)(seconds / 3600));
    else
        buf_format(cell, "%lldd", (long long)(seconds / 86400));
}

static void append_number(struct buf *cell, uint64_t number, bool bytes)
{
    if (bytes && number > 0 && number % GIB == 0)
        buf_format(cell, "%lluGi", (unsigned long long)(number / GIB));
    else if (bytes && number > 0 && number % MIB == 0)
        buf_format(cell, "%lluMi", (unsigned long long)(number / MIB));
    else
        buf_format(cell, "%llu", (unsigned long long)number);
}

static void append_value(struct buf *cell, yyjson_val *value, enum column_form form)
{
    if (!value || yyjson_is_null(value)) {
        buf_append_char(cell, '-');
    } else if (yyjson_is_str(value)) {
        size_t size = yyjson_get_len(value);
        if (form == COLUMN_AGE)
            append_age(cell, yyjson_get_str(value));
        else
            buf_append(cell, yyjson_get_str(value), form == COLUMN_SHORT && size > 12 ? 12 : size);
        if (size == 0)
            buf_append_char(cell, '-');
    } else if (yyjson_is_uint(value)) {
        append_number(cell, yyjson_get_uint(value), form == COLUMN_BYTES);
    } else if (yyjson_is_arr(value)) {
        yyjson_arr_iter each = yyjson_arr_iter_with(value);
        size_t n = 0;
        for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
            if (n++ > 0)
                buf_append_char(cell, ',');
            buf_append(cell, yyjson_get_str(item) ? yyjson_get_str(item) : "?",
                       yyjson_get_str(item) ? yyjson_get_len(item) : 1);
        }
    } else {
        _free_ char *text = yyjson_val_write(value, 0, NULL);
        buf_append_text(cell, text ? text : "?");
    }
}

static void cell_text(const struct column *column, yyjson_val *item, struct buf *cell)
{
    buf_clear(cell);
    append_value(cell, value_at(item, column->path), column->form);
    if (!column->second)
        return;
    buf_append_char(cell, '-');
    append_value(cell, value_at(item, column->second), column->form);
}

/* Characters, not bytes: continuation bytes of UTF-8 take no room. */
static size_t width(struct str text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++)
        n += ((unsigned char)text.data[i] & 0xC0u) != 0x80u;
    return n;
}

static void print_cell(struct str text, size_t wide, bool last)
{
    cli_print(stdout, text);
    for (size_t n = width(text); !last && n < wide + 2; n++)
        putchar(' ');
    if (last)
        putchar('\n');
}

#define COLUMNS_MAX 12u

void cli_print_table(enum resource_kind kind, yyjson_val *items)
{
    const struct column *columns = columns_of[kind];
    size_t wide[COLUMNS_MAX] = {0};
    _buf_ struct buf cell;
    buf_init(&cell, 64 * KIB);
    if (!columns)
        return;
    if (yyjson_arr_size(items) == 0) {
        fprintf(stderr, "none\n");
        return;
    }
    for (size_t i = 0; columns[i].path; i++) {
        wide[i] = strlen(columns[i].heading);
        yyjson_arr_iter each = yyjson_arr_iter_with(items);
        for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
            cell_text(&columns[i], item, &cell);
            size_t n = width((struct str){cell.data, cell.size});
            wide[i] = n > wide[i] ? n : wide[i];
        }
    }
    for (size_t i = 0; columns[i].path; i++)
        print_cell(str_from(columns[i].heading), wide[i], !columns[i + 1].path);
    yyjson_arr_iter each = yyjson_arr_iter_with(items);
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each))
        for (size_t i = 0; columns[i].path; i++) {
            cell_text(&columns[i], item, &cell);
            print_cell((struct str){cell.data, cell.size}, wide[i], !columns[i + 1].path);
        }
}

void cli_print_wrapped(const char *text, size_t column)
{
    struct str rest = str_from(text);
    do {
        size_t size = rest.size;
        if (size > CLI_LINE_COLUMNS - column) {
            size = CLI_LINE_COLUMNS - column;
            while (size > 0 && rest.data[size] != ' ')
                size--;
            size = size > 0 ? size : CLI_LINE_COLUMNS - column;
        }
        cli_print(stdout, (struct str){rest.data, size});
        putchar('\n');
        rest = str_trim(str_skip(rest, size));
        if (rest.size > 0)
            printf("%*s", (int)column, "");
    } while (rest.size > 0);
}
