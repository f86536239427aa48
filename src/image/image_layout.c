#include "image/image_internal.h"

#include "base/bundle.h"

#include <string.h>
#include <yyjson.h>

#if defined(__x86_64__)
#define ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define ARCHITECTURE "arm64"
#else
#error "which name has this architecture in OCI images?"
#endif
#define BLOB_NAME_BYTES (sizeof "blobs/sha256/" + 2 * IMAGE_DIGEST_BYTES)

/* Where the layout's files come from. */
struct source {
    bool packed; /* a folder that the command line has packed, else a tar file */
    struct bundle bundle;
    struct str tar;
};

static int refuse(struct error *err, const char *what)
{
    return error_set(err, ERROR_REFUSED, "%s", what);
}

static int source_open(struct str bytes, struct source *ret_source, struct error *err)
{
    *ret_source = (struct source){.packed = bundle_is(bytes), .tar = bytes};
    return ret_source->packed ? bundle_open(bytes, &ret_source->bundle, err) : 0;
}

/* 1, 0 when it is not there, negative when the tar file cannot be read. */
static int source_find(const struct source *s, struct str name, struct str *ret_content, struct error *err)
{
    if (s->packed)
        return bundle_find(&s->bundle, name, ret_content);
    _free_ struct tar *t = calloc(1, sizeof *t);
    struct tar_member m;
    if (!t)
        return error_set_default(err, ERROR_NO_MEMORY);
    t->rest = s->tar;
    int r;
    while ((r = tar_next(t, &m, err)) > 0) {
        if (m.type == TAR_FILE && str_equal(m.path, name)) {
            *ret_content = m.content;
            return 1;
        }
    }
    return r;
}

/* ---- descriptors ---- */

static struct str text_of(yyjson_val *object, const char *key)
{
    yyjson_val *value = yyjson_obj_get(object, key);
    return yyjson_is_str(value) ? (struct str){yyjson_get_str(value), yyjson_get_len(value)} : (struct str){"", 0};
}

/* The blob that a descriptor means: its digest and its size must be what the descriptor says. */
static int blob_find(const struct source *s, yyjson_val *descriptor, struct str *ret_bytes,
                     uint8_t ret_digest[static IMAGE_DIGEST_BYTES], struct error *err)
{
    static const char digits[] = "0123456789abcdef";
    char name[BLOB_NAME_BYTES] = "blobs/sha256/";
    uint8_t digest[IMAGE_DIGEST_BYTES];
    int r = blob_digest_parse(text_of(descriptor, "digest"), ret_digest, err);
    if (r < 0)
        return r;
    size_t at = sizeof "blobs/sha256/" - 1;
    for (size_t i = 0; i < IMAGE_DIGEST_BYTES; i++) {
        name[at++] = digits[ret_digest[i] >> 4];
        name[at++] = digits[ret_digest[i] & 15];
    }
    r = source_find(s, (struct str){name, at}, ret_bytes, err);
    if (r == 0)
        return error_set(err, ERROR_REFUSED, "it lacks the file %.*s", (int)at, name);
    yyjson_val *size = yyjson_obj_get(descriptor, "size");
    if (r > 0 && (!yyjson_is_uint(size) || yyjson_get_uint(size) != ret_bytes->size))
        return error_set(err, ERROR_REFUSED, "the file %.*s does not have the size that is said of it", (int)at, name);
    if (r > 0)
        r = blob_digest(*ret_bytes, digest, err);
    if (r < 0)
        return r;
    return memcmp(digest, ret_digest, sizeof digest) == 0
               ? 0
               : error_set(err, ERROR_REFUSED, "the file %.*s does not have the digest that it is named by", (int)at,
                           name);
}

static yyjson_doc *json_read(struct str text, const char *what, struct error *err)
{
    yyjson_read_err why = {0};
    if (text.size > LIMIT_IMAGE_JSON_BYTES) {
        (void)error_set(err, ERROR_REFUSED, "its %s has more than %zu KiB", what,
                        (size_t)(LIMIT_IMAGE_JSON_BYTES / KIB));
        return NULL;
    }
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text.data, text.size, 0, NULL, &why);
    if (!doc && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        (void)error_set_default(err, ERROR_NO_MEMORY);
    else if (!doc)
        (void)error_set(err, ERROR_REFUSED, "its %s is no JSON: %s", what, why.msg);
    return doc;
}

/* ---- index and manifest ---- */

static bool is_index(yyjson_val *descriptor)
{
    struct str type = text_of(descriptor, "mediaType");
    return str_equal(type, STR("application/vnd.oci.image.index.v1+json")) ||
           str_equal(type, STR("application/vnd.docker.distribution.manifest.list.v2+json"));
}

static bool is_manifest(yyjson_val *descriptor)
{
    struct str type = text_of(descriptor, "mediaType");
    return str_equal(type, STR("application/vnd.oci.image.manifest.v1+json")) ||
           str_equal(type, STR("application/vnd.docker.distribution.manifest.v2+json"));
}

/* Without a platform it may be for any; the configuration says it, too. */
static bool platform_fits(yyjson_val *descriptor)
{
    yyjson_val *platform = yyjson_obj_get(descriptor, "platform");
    return !platform || (str_equal(text_of(platform, "os"), STR("linux")) &&
                         str_equal(text_of(platform, "architecture"), STR(ARCHITECTURE)));
}

/* The one entry that can be meant. */
static int entry_choose(yyjson_val *index, bool nested, yyjson_val **ret_entry, struct error *err)
{
    yyjson_val *entries = yyjson_obj_get(index, "manifests"), *entry, *found = NULL;
    size_t i, n, fit = 0;
    yyjson_arr_foreach(entries, i, n, entry)
    {
        if ((is_manifest(entry) || (is_index(entry) && !nested)) && platform_fits(entry)) {
            found = entry;
            fit++;
        }
    }
    if (fit == 0)
        return refuse(err, "it holds no image for linux/" ARCHITECTURE);
    if (fit > 1)
        return error_set(err, ERROR_REFUSED, "it holds %zu images for linux/" ARCHITECTURE "; keep one", fit);
    *ret_entry = found;
    return 0;
}

static int layer_add(struct layout *l, const struct source *s, yyjson_val *descriptor, yyjson_val *diff_id,
                     struct error *err)
{
    static const struct {
        const char *type;
        enum blob_packing packing;
    } types[] = {
        {"application/vnd.oci.image.layer.v1.tar", BLOB_PLAIN},
        {"application/vnd.oci.image.layer.v1.tar+gzip", BLOB_GZIP},
        {"application/vnd.oci.image.layer.v1.tar+zstd", BLOB_ZSTD},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar", BLOB_PLAIN},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", BLOB_GZIP},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", BLOB_ZSTD},
        {"application/vnd.docker.image.rootfs.diff.tar", BLOB_PLAIN},
        {"application/vnd.docker.image.rootfs.diff.tar.gzip", BLOB_GZIP},
        {"application/vnd.docker.image.rootfs.diff.tar.zstd", BLOB_ZSTD},
    };
    struct str type = text_of(descriptor, "mediaType");
    uint8_t digest[IMAGE_DIGEST_BYTES];
    struct layout_layer *layer = &l->layers[l->n_layers++];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!str_equal(type, str_from(types[i].type)))
            continue;
        layer->packing = types[i].packing;
        struct str id = {yyjson_get_str(diff_id), yyjson_get_len(diff_id)};
        int r = blob_digest_parse(yyjson_is_str(diff_id) ? id : (struct str){"", 0}, layer->digest, err);
        return r < 0 ? r : blob_find(s, descriptor, &layer->packed, digest, err);
    }
    return error_set(err, ERROR_REFUSED,
                     "a layer is packed as %.*s; what is read is plain tar, gzip and zstd (such as skopeo copy "
                     "--dest-compress-format gzip makes)",
                     (int)(type.size < 80 ? type.size : 80), type.data);
}

/* Its configuration names the digests of the layers' tar files, in the same order. */
static int manifest_read(struct layout *l, const struct source *s, yyjson_val *manifest, struct error *err)
{
    struct str config;
    uint8_t digest[IMAGE_DIGEST_BYTES];
    int r = blob_find(s, yyjson_obj_get(manifest, "config"), &config, digest, err);
    yyjson_doc *doc = r == 0 ? json_read(config, "configuration", err) : NULL;
    if (!doc)
        return r < 0 ? r : -ERROR_REFUSED;
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *layers = yyjson_obj_get(manifest, "layers"), *layer;
    yyjson_val *ids = yyjson_obj_get(yyjson_obj_get(root, "rootfs"), "diff_ids");
    size_t n = yyjson_arr_size(layers), i, max;
    if (!str_equal(text_of(root, "os"), STR("linux")) || !str_equal(text_of(root, "architecture"), STR(ARCHITECTURE)))
        r = refuse(err, "it is not for linux/" ARCHITECTURE);
    else if (n == 0 || n != yyjson_arr_size(ids))
        r = refuse(err, "its manifest and its configuration name different numbers of layers");
    else if (n > LIMIT_IMAGE_LAYERS)
        r = error_set(err, ERROR_REFUSED, "it has %zu layers; at most %u are read", n, LIMIT_IMAGE_LAYERS);
    yyjson_arr_foreach(layers, i, max, layer)
    {
        if (r == 0)
            r = layer_add(l, s, layer, yyjson_arr_get(ids, i), err);
    }
    yyjson_doc_free(doc);
    return r;
}

static int entry_read(struct layout *l, const struct source *s, yyjson_val *entry, bool nested, struct error *err)
{
    struct str text;
    bool index = is_index(entry);
    int r = blob_find(s, entry, &text, index ? l->index : l->manifest, err);
    yyjson_doc *doc = r == 0 ? json_read(text, index ? "index" : "manifest", err) : NULL;
    if (!doc)
        return r < 0 ? r : -ERROR_REFUSED;
    yyjson_val *next = NULL;
    if (!index)
        r = manifest_read(l, s, yyjson_doc_get_root(doc), err);
    else
        r = entry_choose(yyjson_doc_get_root(doc), true, &next, err);
    if (next && !nested)
        r = entry_read(l, s, next, true, err);
    yyjson_doc_free(doc);
    return r;
}

int layout_read(struct str bytes, struct layout *ret_layout, struct error *err)
{
    struct source s;
    struct str text;
    yyjson_val *entry = NULL;
    int r = source_open(bytes, &s, err);
    if (r == 0)
        r = source_find(&s, STR("oci-layout"), &text, err);
    if (r == 0)
        return refuse(err,
                      "it is no OCI image layout: there is no file oci-layout at its top (`skopeo copy` and `docker "
                      "buildx build -o type=oci` make one)");
    if (r > 0)
        r = source_find(&s, STR("index.json"), &text, err);
    if (r == 0)
        return refuse(err, "it has no index.json");
    yyjson_doc *doc = r > 0 ? json_read(text, "index.json", err) : NULL;
    if (!doc)
        return r < 0 ? r : -ERROR_REFUSED;
    *ret_layout = (struct layout){.n_layers = 0};
    r = entry_choose(yyjson_doc_get_root(doc), false, &entry, err);
    if (r == 0)
        r = entry_read(ret_layout, &s, entry, false, err);
    yyjson_doc_free(doc);
    return r;
}
