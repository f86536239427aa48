/* The OpenAI surface's table of routes against docs/openai.md. */
#include "api/serve/openai.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct gateway_surface *const gateway_surfaces[] = {&serve_openai_surface, NULL};

static void test_every_route_is_documented(void **state)
{
    (void)state;
    const char *source = getenv("BULKHEAD_SOURCE");
    if (!source)
        skip();
    char path[4096], row[512], document[65536];
    (void)snprintf(path, sizeof path, "%s/docs/openai.md", source);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    document[fread(document, 1, sizeof document - 1, file)] = '\0';
    (void)fclose(file);
    for (size_t i = 0; i < serve_openai_surface.n_routes; i++) {
        const struct gateway_route *route = &serve_openai_surface.routes[i];
        assert_true(route->method == WIRE_GET || route->method == WIRE_POST);
        assert_int_equal(route->scope, GATEWAY_TENANT);
        assert_int_equal(route->metered, route->method == WIRE_POST);
        const char *name = strstr(route->path, "{}");
        (void)snprintf(row, sizeof row, "\n| `%s` | `%.*s%s` | %s |", route->method == WIRE_GET ? "GET" : "POST",
                       (int)(name ? name - route->path : (ptrdiff_t)strlen(route->path)), route->path,
                       name ? "{model}" : "", route->summary);
        if (!strstr(document, row))
            fail_msg("docs/openai.md does not have the row:%s", row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_route_is_documented)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
