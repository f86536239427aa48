/* Tables of the observed kinds, for `explain` and the documentation; nothing decodes them, so they have no place in a
 * struct. Part of resource_kinds.c, which alone includes this. */
#ifndef BULKHEAD_RESOURCE_RESOURCE_OBSERVED_H
#define BULKHEAD_RESOURCE_RESOURCE_OBSERVED_H

#include "resource/resource_internal.h"

#define OBSERVED(path_, type_, help_)                                  \
    {                                                                  \
        .path = path_, .type = type_, .max = UINT64_MAX, .help = help_ \
    }

static const struct resource_field version_fields[] = {
    OBSERVED("metadata.name", RESOURCE_NAME, "The model's name."),
    OBSERVED("metadata.tenant", RESOURCE_NAME, "Whose it is."),
    OBSERVED("metadata.uid", RESOURCE_INTEGER, "Unique for ever."),
    OBSERVED("spec.engine", RESOURCE_STRING, "As the model's when the version was made."),
    OBSERVED("spec.source", RESOURCE_STRING, "Likewise."),
    OBSERVED("spec.isolation.level", RESOURCE_STRING, "Likewise."),
    OBSERVED("spec.isolation.image", RESOURCE_STRING, "Likewise."),
    OBSERVED("spec.isolation.runtime", RESOURCE_STRING, "Likewise."),
    OBSERVED("spec.resources.cpu", RESOURCE_CPU, "Likewise."),
    OBSERVED("spec.resources.cpuset", RESOURCE_STRING, "Likewise."),
    OBSERVED("spec.resources.memory", RESOURCE_BYTES, "Likewise."),
    OBSERVED("status.number", RESOURCE_INTEGER, "1, 2, … per model: the version in /v2/models/NAME/versions/NUMBER."),
    OBSERVED("status.newest", RESOURCE_BOOLEAN, "Whether a request that names no version gets this one."),
    OBSERVED("status.digest", RESOURCE_STRING, "SHA-256 of its artifact, in hexadecimal digits."),
    OBSERVED("status.bytes", RESOURCE_INTEGER, "Size of its artifact."),
    OBSERVED("status.image.digest", RESOURCE_STRING,
             "sha256: and the digest of its image's manifest; absent without one."),
    OBSERVED("status.image.root", RESOURCE_STRING, "Likewise of the root that was unpacked from it."),
    OBSERVED("status.image.bytes", RESOURCE_INTEGER, "Size of that root."),
    OBSERVED("status.created", RESOURCE_STRING, "When, as RFC 3339 in UTC."),
};

static const struct resource_field replica_fields[] = {
    OBSERVED("metadata.name", RESOURCE_NAME, "Its own number, 16 hexadecimal digits."),
    OBSERVED("metadata.tenant", RESOURCE_NAME, "Whose it is."),
    OBSERVED("status.state", RESOURCE_STRING, "starting, loading, ready, stopping or ended."),
    OBSERVED("status.model", RESOURCE_NAME, "The model it is a copy of."),
    OBSERVED("status.version", RESOURCE_INTEGER, "The version it runs."),
    OBSERVED("status.engine", RESOURCE_STRING, "What executes it."),
    OBSERVED("status.level", RESOURCE_STRING, "The isolation level."),
    OBSERVED("status.wall", RESOURCE_STRING, "What the level consists of on this host, and what is missing."),
    OBSERVED("status.pid", RESOURCE_INTEGER, "Its process."),
    OBSERVED("status.uid", RESOURCE_INTEGER, "The user id it runs as; its own."),
    OBSERVED("status.restarts", RESOURCE_INTEGER, "How often a replica of this version ended unasked."),
    OBSERVED("status.started", RESOURCE_STRING, "When, as RFC 3339 in UTC."),
    OBSERVED(
        "status.adapters", RESOURCE_STRING,
        "The adapters that are loaded in it: a list of {tenant, name, bytes, sequences}, sequences being how many of "
        "its batch use it now. Absent without any."),
    OBSERVED("status.lastError", RESOURCE_STRING, "Why one of this version ended last; absent when none did."),
};

static const struct resource_field key_fields[] = {
    OBSERVED("metadata.name", RESOURCE_STRING, "For people; may be empty."),
    OBSERVED("metadata.tenant", RESOURCE_NAME, "As whom a request with this key runs."),
    OBSERVED("status.id", RESOURCE_STRING, "The part of the key between the underscores; what `key revoke` takes."),
    OBSERVED("status.created", RESOURCE_STRING, "When, as RFC 3339 in UTC."),
};

static const struct resource_field device_fields[] = {
    OBSERVED("metadata.name", RESOURCE_NAME, "cpu, or as the Server's spec.devices names it."),
    OBSERVED("status.slots", RESOURCE_INTEGER, "How much can run on it at once."),
    OBSERVED("status.used", RESOURCE_INTEGER, "Slots that leases hold now."),
    OBSERVED("status.dedicated", RESOURCE_INTEGER,
             "Of cpu: slots that are replicas' own (spec.resources.cpuset), and nobody else's."),
    OBSERVED("status.queued", RESOURCE_INTEGER, "Requests that wait for it now."),
    OBSERVED("status.busyPercent", RESOURCE_INTEGER,
             "Of slots × time since the gateway began, what leases used; lost ones included."),
    OBSERVED("status.seconds.tenants", RESOURCE_INTEGER, "Slots × time that tenants were charged, with a fraction."),
    OBSERVED("status.seconds.system", RESOURCE_INTEGER, "Likewise, lost to pre-emption: charged to nobody."),
    OBSERVED("status.seconds.idle", RESOURCE_INTEGER, "Likewise, unused."),
};

#endif
