#include "isolate/isolate_bundle.h"

#include "isolate/isolate_internal.h"
#include "isolate/isolate_profile.h"

#include <stdio.h>
#include <yyjson.h>

/* Built by one function per part of the specification; yyjson's calls accept NULL and then return false, so that only
 * the end looks for a lack of memory. Every string is borrowed until the text is written. */
struct writer {
    yyjson_mut_doc *doc;
    const struct bundle *b;
};

static yyjson_mut_val *object_in(const struct writer *w, yyjson_mut_val *parent, const char *key)
{
    return yyjson_mut_obj_add_obj(w->doc, parent, key);
}

static yyjson_mut_val *array_in(const struct writer *w, yyjson_mut_val *parent, const char *key)
{
    return yyjson_mut_obj_add_arr(w->doc, parent, key);
}

static bool texts_in(const struct writer *w, yyjson_mut_val *parent, const char *key, const char *const *texts)
{
    yyjson_mut_val *array = array_in(w, parent, key);
    bool good = array != NULL;
    for (size_t i = 0; good && texts && texts[i]; i++)
        good = yyjson_mut_arr_add_str(w->doc, array, texts[i]);
    return good;
}

static bool capabilities_add(const struct writer *w, yyjson_mut_val *process)
{
    static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted", "ambient"};
    yyjson_mut_val *capabilities = object_in(w, process, "capabilities");
    bool good = capabilities != NULL;
    for (size_t i = 0; good && i < sizeof sets / sizeof *sets; i++)
        good = texts_in(w, capabilities, sets[i], NULL);
    return good;
}

/* The same limits as every other level sets for itself (isolate_child.c). Never RLIMIT_AS: engines map far more than
 * they touch. */
static bool rlimits_add(const struct writer *w, yyjson_mut_val *process)
{
    const struct {
        const char *name;
        uint64_t value;
    } rlimits[] = {
        {"RLIMIT_CORE", 0},
        {"RLIMIT_NOFILE", w->b->limits.fds},
        {"RLIMIT_FSIZE", w->b->limits.file_bytes},
        {"RLIMIT_MEMLOCK", ISOLATE_MEMLOCK_BYTES},
        {"RLIMIT_NPROC", ISOLATE_NPROC_MAX},
        {"RLIMIT_SIGPENDING", ISOLATE_SIGPENDING_MAX},
        {"RLIMIT_MSGQUEUE", 0},
        {"RLIMIT_NICE", 0},
        {"RLIMIT_RTPRIO", 0},
    };
    yyjson_mut_val *array = array_in(w, process, "rlimits");
    bool good = array != NULL;
    for (size_t i = 0; good && i < sizeof rlimits / sizeof *rlimits; i++) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(w->doc, array);
        good = yyjson_mut_obj_add_str(w->doc, one, "type", rlimits[i].name) &&
               yyjson_mut_obj_add_uint(w->doc, one, "hard", rlimits[i].value) &&
               yyjson_mut_obj_add_uint(w->doc, one, "soft", rlimits[i].value);
    }
    return good;
}

static bool process_add(const struct writer *w, yyjson_mut_val *config)
{
    yyjson_mut_val *process = object_in(w, config, "process"), *user = object_in(w, process, "user");
    return yyjson_mut_obj_add_bool(w->doc, process, "terminal", false) &&
           yyjson_mut_obj_add_uint(w->doc, user, "uid", w->b->uid) &&
           yyjson_mut_obj_add_uint(w->doc, user, "gid", w->b->gid) &&
           yyjson_mut_obj_add_uint(w->doc, user, "umask", 077) && texts_in(w, process, "args", w->b->arguments) &&
           texts_in(w, process, "env", w->b->environment) && yyjson_mut_obj_add_str(w->doc, process, "cwd", "/") &&
           yyjson_mut_obj_add_bool(w->doc, process, "noNewPrivileges", true) &&
           yyjson_mut_obj_add_int(w->doc, process, "oomScoreAdj", ISOLATE_OOM_SCORE_ADJUST) &&
           capabilities_add(w, process) && rlimits_add(w, process);
}

static bool root_add(const struct writer *w, yyjson_mut_val *config)
{
    yyjson_mut_val *root = object_in(w, config, "root");
    return yyjson_mut_obj_add_str(w->doc, root, "path", w->b->root) &&
           yyjson_mut_obj_add_bool(w->doc, root, "readonly", true);
}

/* Every one fresh: nothing of the host's is bound in. The runtime puts null, zero, full, random, urandom and tty into
 * /dev by itself. */
static bool mounts_add(const struct writer *w, yyjson_mut_val *config)
{
    char tmp_size[32];
    (void)snprintf(tmp_size, sizeof tmp_size, "size=%zu", BUNDLE_TMP_BYTES); /* fits */
    const struct {
        const char *destination, *type;
        const char *options[8];
    } mounts[] = {
        {"/proc", "proc", {"nosuid", "noexec", "nodev"}},
        {"/dev", "tmpfs", {"nosuid", "noexec", "mode=755", "size=65536", "nr_inodes=64"}},
        {"/tmp", "tmpfs", {"nosuid", "noexec", "nodev", "mode=1777", tmp_size, "nr_inodes=1024"}},
    };
    yyjson_mut_val *array = array_in(w, config, "mounts");
    bool good = array != NULL;
    for (size_t i = 0; good && i < sizeof mounts / sizeof *mounts; i++) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(w->doc, array), *options = NULL;
        good = yyjson_mut_obj_add_str(w->doc, one, "destination", mounts[i].destination) &&
               yyjson_mut_obj_add_str(w->doc, one, "type", mounts[i].type) &&
               yyjson_mut_obj_add_str(w->doc, one, "source", mounts[i].type) &&
               (options = array_in(w, one, "options")) != NULL;
        for (size_t k = 0; good && mounts[i].options[k]; k++) /* the size lies on this function's stack: copied */
            good = yyjson_mut_arr_add_strcpy(w->doc, options, mounts[i].options[k]);
    }
    return good;
}

static bool mapping_add(const struct writer *w, yyjson_mut_val *linux_part, const char *key, uint32_t id)
{
    yyjson_mut_val *array = array_in(w, linux_part, key);
    const uint32_t pairs[2][2] = {{0, BUNDLE_ROOT_UID}, {id, id}};
    bool good = array != NULL;
    for (size_t i = 0; good && i < 2; i++) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(w->doc, array);
        good = yyjson_mut_obj_add_uint(w->doc, one, "containerID", pairs[i][0]) &&
               yyjson_mut_obj_add_uint(w->doc, one, "hostID", pairs[i][1]) &&
               yyjson_mut_obj_add_uint(w->doc, one, "size", 1);
    }
    return good;
}

static bool namespaces_add(const struct writer *w, yyjson_mut_val *linux_part)
{
    static const char *const types[] = {"pid", "network", "ipc", "uts", "mount", "user", "cgroup"};
    yyjson_mut_val *array = array_in(w, linux_part, "namespaces");
    bool good = array != NULL;
    for (size_t i = 0; good && i < sizeof types / sizeof *types; i++) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(w->doc, array);
        good = yyjson_mut_obj_add_str(w->doc, one, "type", types[i]);
    }
    return good;
}

static bool resources_add(const struct writer *w, yyjson_mut_val *linux_part)
{
    const struct isolate_limits *limits = &w->b->limits;
    yyjson_mut_val *resources = object_in(w, linux_part, "resources"), *part = NULL;
    yyjson_mut_val *deny = yyjson_mut_arr_add_obj(w->doc, array_in(w, resources, "devices"));
    bool good =
        yyjson_mut_obj_add_bool(w->doc, deny, "allow", false) && yyjson_mut_obj_add_str(w->doc, deny, "access", "rwm");
    if (good && w->b->resources & BUNDLE_MEMORY) {
        part = object_in(w, resources, "memory");
        good = yyjson_mut_obj_add_uint(w->doc, part, "limit", limits->memory_bytes) &&
               (!(w->b->resources & BUNDLE_SWAP) ||
                yyjson_mut_obj_add_uint(w->doc, part, "swap", limits->memory_bytes)); /* memory + swap: so no swap */
    }
    yyjson_mut_val *cpu = NULL;
    if (good && (w->b->resources & BUNDLE_CPU || w->b->cpus))
        cpu = object_in(w, resources, "cpu");
    if (good && w->b->cpus)
        good = yyjson_mut_obj_add_str(w->doc, cpu, "cpus", w->b->cpus);
    if (good && w->b->resources & BUNDLE_CPU) {
        part = cpu;
        good = yyjson_mut_obj_add_uint(w->doc, part, "quota", cgroup_cpu_quota_us(limits)) &&
               yyjson_mut_obj_add_uint(w->doc, part, "period", CGROUP_CPU_PERIOD_US);
    }
    if (good && w->b->resources & BUNDLE_PIDS)
        good = yyjson_mut_obj_add_uint(w->doc, object_in(w, resources, "pids"), "limit", limits->pids);
    return good;
}

static bool linux_add(const struct writer *w, yyjson_mut_val *config)
{
    static const char *const masked[] = {"/proc/acpi",
                                         "/proc/asound",
                                         "/proc/interrupts",
                                         "/proc/kcore",
                                         "/proc/keys",
                                         "/proc/latency_stats",
                                         "/proc/sched_debug",
                                         "/proc/scsi",
                                         "/proc/timer_list",
                                         "/proc/timer_stats",
                                         NULL};
    static const char *const read_only[] = {"/proc/bus",           "/proc/fs", "/proc/irq", "/proc/sys",
                                            "/proc/sysrq-trigger", NULL};
    yyjson_mut_val *part = object_in(w, config, "linux");
    return yyjson_mut_obj_add_str(w->doc, part, "cgroupsPath", w->b->cgroups_path) &&
           mapping_add(w, part, "uidMappings", w->b->uid) && mapping_add(w, part, "gidMappings", w->b->gid) &&
           namespaces_add(w, part) && resources_add(w, part) && (!w->b->filter || profile_add(w->doc, part)) &&
           texts_in(w, part, "maskedPaths", masked) && texts_in(w, part, "readonlyPaths", read_only);
}

int bundle_write(const struct bundle *b, struct buf *json, struct error *err)
{
    const struct writer w = {yyjson_mut_doc_new(NULL), b};
    yyjson_mut_val *config = yyjson_mut_obj(w.doc);
    yyjson_mut_doc_set_root(w.doc, config);
    bool good =
        yyjson_mut_obj_add_str(w.doc, config, "ociVersion", "1.0.2") && process_add(&w, config) &&
        root_add(&w, config) && yyjson_mut_obj_add_str(w.doc, config, "hostname", "worker") && mounts_add(&w, config) &&
        linux_add(&w, config) &&
        yyjson_mut_obj_add_str(w.doc, object_in(&w, config, "annotations"), "bulkhead.root.sha256", b->root_digest);
    size_t size = 0;
    yyjson_write_err why = {0};
    char *text = good ? yyjson_mut_write_opts(w.doc, YYJSON_WRITE_PRETTY, NULL, &size, &why) : NULL;
    yyjson_mut_doc_free(w.doc);
    if (text)
        buf_append(json, text, size);
    free(text);
    if (text && !json->failed)
        return 0;
    return why.code == YYJSON_WRITE_ERROR_INVALID_STRING
               ? error_set(err, ERROR_INVALID_ARGUMENT, "An argument of the worker is not valid UTF-8.")
               : error_set_default(err, ERROR_NO_MEMORY);
}
