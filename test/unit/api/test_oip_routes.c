/* The OIP surface's table of routes against docs/oip.md, and what the tables of routes promise by their order. */
#include "api/serve/oip.h"
#include "wire/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct gateway_surface *const gateway_surfaces[] = {&serve_oip_surface, NULL};

/* "/v2/models/{}/versions/{}" as people write it. */
static void append_path(struct buf *text, const char *path)
{
    unsigned n = 0;
    for (; *path; path++) {
        if (strncmp(path, "{}", 2) != 0) {
            buf_append_char(text, *path);
            continue;
        }
        buf_append_text(text, n++ == 0 ? "{model}" : "{version}");
        path++;
    }
}

static void append_row(struct buf *text, const struct gateway_route *route)
{
    buf_format(text, "\n| `%s` | `", route->method == WIRE_GET ? "GET" : "POST");
    append_path(text, route->path);
    buf_format(text, "` | %s | %s |\n", route->scope == GATEWAY_OPEN ? "nobody" : "a key", route->summary);
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    while ((text = strstr(text, part)) != NULL) {
        text += strlen(part);
        n++;
    }
    return n;
}

static void test_every_route_is_documented(void **state)
{
    (void)state;
    const char *source = getenv("BULKHEAD_SOURCE");
    if (!source)
        skip();
    _buf_ struct buf path, text, row;
    buf_init(&path, 4 * KIB);
    buf_init(&text, MIB);
    buf_init(&row, 4 * KIB);
    buf_format(&path, "%s/docs/oip.md", source);
    FILE *file = fopen(buf_terminate(&path), "r");
    assert_non_null(file);
    size_t n;
    while ((n = fread(buf_reserve(&text, 4096), 1, 4096, file)) > 0)
        buf_commit(&text, n);
    (void)fclose(file);
    const char *document = buf_terminate(&text);
    for (size_t i = 0; i < serve_oip_surface.n_routes; i++) {
        buf_clear(&row);
        append_row(&row, &serve_oip_surface.routes[i]);
        if (!strstr(document, buf_terminate(&row)))
            fail_msg("docs/oip.md does not have the row:%s", row.data);
    }
    assert_int_equal(count(document, "\n| `GET` | ") + count(document, "\n| `POST` | "), serve_oip_surface.n_routes);
}

/* The first route that fits is taken, so the ones without parameters must come first. */
static void test_no_route_hides_another(void **state)
{
    (void)state;
    const struct gateway_route *routes = serve_oip_surface.routes;
    for (size_t i = 0; i < serve_oip_surface.n_routes; i++) {
        const struct gateway_route *route = &routes[i];
        assert_true(route->method == WIRE_GET || route->method == WIRE_POST);
        assert_non_null(route->handler);
        assert_int_equal(route->metered, strstr(route->path, "/infer") || strstr(route->path, "/generate"));
        assert_int_equal(route->scope, strstr(route->path, "/health/") ? GATEWAY_OPEN : GATEWAY_TENANT);
        assert_int_equal(route->method == WIRE_POST, route->body_bytes_max > 0);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(routes[k].path, route->path);
        if (strcmp(route->path, "/v2/models/stats") == 0)
            for (size_t k = 0; k < i; k++)
                assert_string_not_equal(routes[k].path, "/v2/models/{}");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_is_documented),
        cmocka_unit_test(test_no_route_hides_another),
    };
    return cmocka_run_group_tests_name("oip_routes", tests, NULL, NULL);
}
