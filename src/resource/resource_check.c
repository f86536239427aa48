/* What a single field cannot see. */
#include "resource/resource_internal.h"

#include <arpa/inet.h>
#include <inttypes.h>

/* ADDRESS:PORT with a literal address: names would need a resolver, and may change. */
static bool is_listen_address(struct str s)
{
    size_t colon = s.size;
    while (colon > 0 && s.data[colon - 1] != ':')
        colon--;
    uint64_t port;
    if (colon < 2 || str_to_u64(str_skip(s, colon), &port) < 0 || port > 65535)
        return false;
    struct str host = {s.data, colon - 1};
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address; /* room for either family */
    if (host.data[0] != '[')
        return str_copy(host, text, sizeof text) == 0 && inet_pton(AF_INET, text, &address) == 1;
    if (host.size < 2 || host.data[host.size - 1] != ']')
        return false;
    host = (struct str){host.data + 1, host.size - 2};
    return str_copy(host, text, sizeof text) == 0 && inet_pton(AF_INET6, text, &address) == 1;
}

/* Blank workers must not use up the user ids that replicas need. */
#define POOL_UIDS 8u

/* What lower classes keep, in percent, of a device that critical requests could use up. */
#define SHARES_MAX 50u

static int check_server(const struct resource_server *s, struct error *err)
{
    if (!is_listen_address(str_from(s->listen)))
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.listen: expected ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, found \"%s\"",
                         s->listen);
    if (s->uid_base + s->uid_count > UINT32_MAX) /* both are far below: no overflow; (uid_t)-1 means "none" */
        return error_set(err, ERROR_INVALID_RESOURCE, "spec.uids: base and count reach beyond the last user id");
    if (s->pool_size * POOL_UIDS > s->uid_count)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.pool.size: %" PRIu64 " blank workers per engine need a spec.uids.count of at least "
                         "%" PRIu64,
                         s->pool_size, s->pool_size * POOL_UIDS);
    bool cpu_listed = false;
    for (uint32_t i = 0; i < s->devices.n; i++)
        cpu_listed = cpu_listed || str_equal(str_from(s->devices.entries[i].name), STR("cpu"));
    if (!cpu_listed && s->devices.n == LIMIT_DEVICES)
        return error_set(err, ERROR_INVALID_RESOURCE, "spec.devices: at most %u devices, and cpu is one of them",
                         LIMIT_DEVICES);
    if (s->share_interactive + s->share_batch > SHARES_MAX)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.classes: interactive and batch together keep at most %u percent, found %" PRIu64,
                         SHARES_MAX, s->share_interactive + s->share_batch);
    return 0;
}

int resource_image_split(const char *image, struct str *ret_path, struct str *ret_pin)
{
    struct str path = str_from(image), pin = {"", 0};
    const char *at = strstr(image, "@sha256:");
    if (at) {
        pin = str_from(at + 1);
        path.size = (size_t)(at - image);
        if (pin.size != 7 + 64 || strspn(at + 8, "0123456789abcdef") != 64)
            return -ERROR_INVALID_ARGUMENT;
    }
    if (path.size == 0)
        return -ERROR_INVALID_ARGUMENT;
    *ret_path = path;
    *ret_pin = pin;
    return 0;
}

#define LEVEL_CONTAINER 3u /* index of the level in its field's words */

static int check_model(const struct resource_model *m, struct error *err)
{
    struct str path, pin;
    if (m->isolation_image[0] && m->isolation_level != LEVEL_CONTAINER)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.isolation.image: only workers of level container have an image; change "
                         "spec.isolation.level to container, or leave this out");
    if (m->isolation_image[0] && resource_image_split(m->isolation_image, &path, &pin) < 0)
        return error_set(
            err, ERROR_INVALID_RESOURCE,
            "spec.isolation.image: expected PATH or PATH@sha256: and 64 hexadecimal digits, found \"%.200s\"",
            m->isolation_image);
    if (m->isolation_runtime != 0 && m->isolation_level < LEVEL_CONTAINER)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.isolation.runtime: only workers of level container, and of level microvm inside their "
                         "machine, are run by an OCI runtime; change spec.isolation.level, or leave this out");
    if (m->cpuset != 0 && m->isolation_level == 0)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.resources.cpuset: a replica of level shared has no process of its own that could have "
                         "cores of its own; change spec.isolation.level to pool or above, or leave this out");
    if (m->batch_preferred.n > 0 && m->batch_preferred.values[m->batch_preferred.n - 1] > m->batch_max)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.batching.preferredSizes: %u is more than spec.batching.maxSize, %" PRIu64,
                         m->batch_preferred.values[m->batch_preferred.n - 1], m->batch_max);
    if (m->replicas_min > m->replicas_max)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "spec.replicas: min (%" PRIu64 ") must not be above max (%" PRIu64 ")", m->replicas_min,
                         m->replicas_max);
    return 0;
}

static int check_grant(const struct resource_grant *g, struct error *err)
{
    for (uint32_t i = 0; i < g->tenants.n; i++)
        if (strcmp(g->tenants.entries[i], g->meta.tenant) == 0)
            return error_set(err, ERROR_INVALID_RESOURCE, "spec.tenants: %s is whose model it is; it needs no Grant",
                             g->meta.tenant);
    return 0;
}

int resource_check_fields(enum resource_kind kind, const union resource_any *resource, struct error *err)
{
    if (kind == RESOURCE_SERVER)
        return check_server(&resource->server, err);
    if (kind == RESOURCE_MODEL)
        return check_model(&resource->model, err);
    if (kind == RESOURCE_GRANT)
        return check_grant(&resource->grant, err);
    return 0;
}
