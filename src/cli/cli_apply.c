/* apply: read and check the file, upload what its models name, then send all of it in one request. */
#include "cli/yaml.h"
#include "cli_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define UPLOAD_TIMEOUT_MS 60000u
/* The server reads whole models, a second or more for each GB, before it answers. */
#define APPLY_TIMEOUT_MS 600000u

struct document {
    yyjson_val *json;
    struct yaml_place place;
    char title[3 * (LIMIT_NAME_BYTES + 1)]; /* "Model acme/digits": what the server calls it too */
    enum resource_kind kind;
    bool stored; /* it carries a uid: it came from `get` */
    /* What a Model names: its source, and its image; an Adapter has a source only. */
    struct upload {
        const char *field;
        char *written; /* owned; NULL: none */
        char *path;    /* the file or folder that it means; owned */
        char digest[65];
    } uploads[2];
};

#define UPLOADS 2u

struct apply {
    const struct cli_call *call;
    const char *file;   /* as the user named it */
    const char *folder; /* length-bounded prefix of file; */
    size_t folder_size;
    struct buf json;
    yyjson_doc *parsed;
    struct document *documents; /* [n] */
    uint32_t n;
};

static enum cli_exit complain_document(const struct apply *apply, const struct document *document, const char *text)
{
    return cli_complain("%s: document %u (line %u): %s", apply->file, document->place.number, document->place.line,
                        text);
}

/* --- reading --- */

static enum cli_exit read_documents(struct apply *apply, struct buf *yaml)
{
    const char *path = cli_flag_value(apply->call, "file");
    enum cli_exit status = cli_read_file(path, YAML_BYTES_MAX, yaml);
    if (status != CLI_DONE)
        return status;
    _free_ struct yaml_place *places = calloc(YAML_DOCUMENTS_MAX, sizeof *places);
    struct error err = {0};
    int rc = places
                 ? cli_yaml_to_json_places((struct str){yaml->data, yaml->size}, &apply->json, places, &apply->n, &err)
                 : -ERROR_NO_MEMORY;
    if (rc < 0)
        return cli_complain("%s: %s", apply->file, error_text(&err, rc));
    if (apply->n == 0)
        return cli_complain("%s: there is nothing in it", apply->file);
    apply->parsed = yyjson_read(apply->json.data, apply->json.size, 0);
    apply->documents = calloc(apply->n, sizeof *apply->documents);
    if (!apply->parsed || !apply->documents)
        return cli_complain("out of memory");
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_doc_get_root(apply->parsed));
    for (uint32_t i = 0; i < apply->n; i++) {
        apply->documents[i].json = yyjson_arr_iter_next(&each);
        apply->documents[i].place = places[i];
    }
    return CLI_DONE;
}

static enum cli_exit uploads_take(struct document *document, const struct resource_model *model)
{
    struct str path, pin;
    struct upload *source = &document->uploads[0], *image = &document->uploads[1];
    source->field = "spec.source";
    source->written = strdup(model->source);
    source->path = strdup(model->source);
    image->field = "spec.isolation.image";
    if (model->isolation_image[0] && resource_image_split(model->isolation_image, &path, &pin) == 0) {
        image->written = strdup(model->isolation_image);
        image->path = strndup(path.data, path.size);
    }
    bool whole = source->written && source->path && (!model->isolation_image[0] || (image->written && image->path));
    return whole ? CLI_DONE : cli_complain("out of memory");
}

static enum cli_exit adapter_take(struct document *document, const struct resource_adapter *adapter)
{
    struct upload *source = &document->uploads[0];
    source->field = "spec.source";
    source->written = strdup(adapter->source);
    source->path = strdup(adapter->source);
    return source->written && source->path ? CLI_DONE : cli_complain("out of memory");
}

/* The server checks all of this again; here it is known which document of which file it was. */
static enum cli_exit check_document(const struct apply *apply, struct document *document)
{
    struct error err = {0};
    int rc = resource_peek(document->json, &document->kind, &err);
    if (rc < 0)
        return complain_document(apply, document, error_text(&err, rc));
    const struct resource_kind_info *info = &resource_kinds[document->kind];
    if (document->kind == RESOURCE_SERVER)
        return complain_document(apply, document, "a Server is not applied: it is the file of serve --config");
    if (!info->declared || info->bytes == 0) {
        (void)error_set(&err, ERROR_INVALID_RESOURCE, "a %s is read-only: it is shown by get, not applied", info->name);
        return complain_document(apply, document, err.text);
    }
    _free_ void *resource = malloc(info->bytes);
    if (!resource)
        return cli_complain("out of memory");
    rc = resource_decode(document->json, document->kind, resource, &err);
    if (rc < 0)
        return complain_document(apply, document, error_text(&err, rc));
    const struct resource_meta *meta = resource;
    (void)snprintf(document->title, sizeof document->title, "%s %s%s%s", info->name, meta->tenant,
                   meta->tenant[0] ? "/" : "", meta->name); /* names are bounded */
    document->stored = meta->uid != 0;
    if (document->kind == RESOURCE_MODEL)
        return uploads_take(document, resource);
    if (document->kind == RESOURCE_ADAPTER)
        return adapter_take(document, resource);
    return CLI_DONE;
}

/* --- uploading --- */

static enum cli_exit complain_upload(const struct apply *apply, const struct document *document,
                                     const struct upload *upload, const char *why)
{
    _buf_ struct buf text;
    buf_init(&text, 4 * KIB);
    buf_format(&text, "%s: %s: \"%s\": %s", document->title, upload->field, upload->written, why);
    return complain_document(apply, document, buf_terminate(&text));
}

static enum cli_exit send_file(const struct apply *apply, const struct document *document, struct upload *upload,
                               int fd, uint64_t bytes)
{
    struct wire_client_request request = {.method = "POST",
                                          .target = "/v1alpha1/artifacts",
                                          .content_type = "application/octet-stream",
                                          .body_fd = fd,
                                          .body_fd_bytes = bytes,
                                          .timeout_ms = UPLOAD_TIMEOUT_MS};
    _answer_ struct cli_answer answer = {0};
    enum cli_exit status = cli_admin_send(apply->call, &request, &answer);
    if (status != CLI_DONE)
        return status;
    yyjson_val *root = answer.json ? yyjson_doc_get_root(answer.json) : NULL;
    yyjson_val *digest = yyjson_obj_get(root, "digest");
    if (answer.status / 100 == 2 && yyjson_get_len(digest) == sizeof upload->digest - 1) {
        memcpy(upload->digest, yyjson_get_str(digest), sizeof upload->digest);
        return CLI_DONE;
    }
    _buf_ struct buf why;
    buf_init(&why, 4 * KIB);
    cli_answer_error(&answer, &why);
    return complain_upload(apply, document, upload, buf_terminate(&why));
}

static enum cli_exit send_folder(const struct apply *apply, const struct document *document, struct upload *upload,
                                 int folder)
{
    char why[CLI_FOLDER_WHY_BYTES];
    uint64_t bytes = 0;
    _close_ int fd = -1;
    if (cli_folder_pack(folder, &fd, &bytes, why) < 0)
        return complain_upload(apply, document, upload, why);
    return send_file(apply, document, upload, fd, bytes);
}

/* The file or folder that is meant, seen from the folder of the YAML file. -1 with errno. */
static int open_source(const struct apply *apply, const char *source)
{
    _buf_ struct buf path;
    buf_init(&path, 8 * KIB);
    if (source[0] != '/')
        buf_append(&path, apply->folder, apply->folder_size);
    buf_append_text(&path, source);
    const char *text = buf_terminate(&path);
    return open(text, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not stuck on a FIFO */
}

/* The same file that was sent before, for whichever document; NULL: none was. */
static const struct upload *sent_before(const struct apply *apply, const struct upload *upload)
{
    for (const struct document *d = apply->documents; d < apply->documents + apply->n; d++)
        for (size_t k = 0; k < UPLOADS; k++) {
            if (&d->uploads[k] == upload)
                return NULL;
            if (d->uploads[k].digest[0] && strcmp(d->uploads[k].path, upload->path) == 0)
                return &d->uploads[k];
        }
    return NULL;
}

static enum cli_exit upload_one(const struct apply *apply, const struct document *document, struct upload *upload)
{
    if (strstr(upload->path, "://"))
        return complain_upload(apply, document, upload, "only a file for now, no address");
    const struct upload *before = sent_before(apply, upload);
    if (before) {
        memcpy(upload->digest, before->digest, sizeof upload->digest);
        return CLI_DONE;
    }
    _close_ int fd = open_source(apply, upload->path);
    /* what `get -o yaml` printed on another machine: the server still has the artifact, and says so if not */
    if (fd < 0 && errno == ENOENT && document->stored)
        return CLI_DONE;
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0)
        return complain_upload(apply, document, upload, strerrordesc_np(errno));
    if (S_ISDIR(info.st_mode))
        return send_folder(apply, document, upload, fd);
    if (!S_ISREG(info.st_mode))
        return complain_upload(apply, document, upload, "not a regular file");
    if (info.st_size == 0)
        return complain_upload(apply, document, upload, "the file is empty");
    return send_file(apply, document, upload, fd, (uint64_t)info.st_size);
}

/* --- applying --- */

static void build_body(const struct apply *apply, struct buf *body)
{
    buf_append_text(body, "{\"resources\":");
    buf_append(body, apply->json.data, apply->json.size);
    buf_append_text(body, ",\"artifacts\":{");
    bool first = true;
    for (uint32_t i = 0; i < UPLOADS * apply->n; i++) {
        const struct upload *upload = &apply->documents[i / UPLOADS].uploads[i % UPLOADS];
        bool sent = false; /* one that two models share stands once */
        for (uint32_t k = 0; k < i && !sent && upload->digest[0]; k++) {
            const struct upload *other = &apply->documents[k / UPLOADS].uploads[k % UPLOADS];
            sent = other->digest[0] && strcmp(other->written, upload->written) == 0;
        }
        if (!upload->digest[0] || sent)
            continue;
        if (!first)
            buf_append_char(body, ',');
        first = false;
        buf_append_json(body, str_from(upload->written));
        buf_format(body, ":\"%s\"", upload->digest);
    }
    buf_append_text(body, "}}");
}

/* The server names the resource; the file and the document are added here. */
static enum cli_exit complain_answer(const struct apply *apply, const struct cli_answer *answer)
{
    _buf_ struct buf text;
    buf_init(&text, 4 * KIB);
    cli_answer_error(answer, &text);
    const char *message = buf_terminate(&text);
    for (uint32_t i = 0; i < apply->n; i++) {
        const struct document *document = &apply->documents[i];
        size_t length = strlen(document->title);
        if (strncmp(message, document->title, length) == 0 && message[length] == ':')
            return complain_document(apply, document, message);
    }
    return cli_complain("%s: %s", apply->file, message);
}

static void print_results(const struct cli_answer *answer)
{
    yyjson_val *root = answer->json ? yyjson_doc_get_root(answer->json) : NULL;
    yyjson_val *resources = root ? yyjson_obj_get(root, "resources") : NULL;
    if (!yyjson_is_arr(resources))
        return;
    yyjson_arr_iter each = yyjson_arr_iter_with(resources);
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
        const char *kind = yyjson_get_str(yyjson_obj_get(item, "kind"));
        const char *tenant = yyjson_get_str(yyjson_obj_get(item, "tenant"));
        const char *name = yyjson_get_str(yyjson_obj_get(item, "name"));
        const char *result = yyjson_get_str(yyjson_obj_get(item, "result"));
        yyjson_val *version = yyjson_obj_get(item, "version");
        if (!kind || !name || !result)
            continue;
        printf("%s %s%s%s %s", kind, tenant ? tenant : "", tenant && tenant[0] ? "/" : "", name, result);
        if (version)
            printf(" (version %llu)", (unsigned long long)yyjson_get_uint(version));
        putchar('\n');
    }
}

static enum cli_exit apply_all(struct apply *apply)
{
    _buf_ struct buf yaml = {0}, body;
    buf_init(&body, LIMIT_ADMIN_BODY_BYTES);
    enum cli_exit status = read_documents(apply, &yaml);
    for (uint32_t i = 0; status == CLI_DONE && i < apply->n; i++)
        status = check_document(apply, &apply->documents[i]);
    for (uint32_t i = 0; status == CLI_DONE && i < UPLOADS * apply->n; i++)
        if (apply->documents[i / UPLOADS].uploads[i % UPLOADS].written)
            status =
                upload_one(apply, &apply->documents[i / UPLOADS], &apply->documents[i / UPLOADS].uploads[i % UPLOADS]);
    if (status != CLI_DONE)
        return status;
    build_body(apply, &body);
    if (body.failed)
        return cli_complain("%s: more than %zu MiB for one apply", apply->file, LIMIT_ADMIN_BODY_BYTES / MIB);
    struct wire_client_request request = {.method = "POST",
                                          .target = "/v1alpha1/apply",
                                          .content_type = "application/json",
                                          .body = {body.data, body.size},
                                          .body_fd = -1,
                                          .timeout_ms = APPLY_TIMEOUT_MS};
    _answer_ struct cli_answer answer = {0};
    status = cli_admin_send(apply->call, &request, &answer);
    if (status != CLI_DONE)
        return status;
    if (answer.status / 100 != 2)
        return complain_answer(apply, &answer);
    print_results(&answer);
    cli_print_pending(&answer);
    return CLI_DONE;
}

enum cli_exit cli_apply(const struct cli_call *call)
{
    const char *path = cli_flag_value(call, "file");
    bool standard = strcmp(path, "-") == 0;
    const char *slash = standard ? NULL : strrchr(path, '/');
    struct apply apply = {.call = call,
                          .file = standard ? "standard input" : path,
                          .folder = path,
                          .folder_size = slash ? (size_t)(slash - path) + 1 : 0};
    buf_init(&apply.json, LIMIT_ADMIN_BODY_BYTES);
    enum cli_exit status = apply_all(&apply);
    for (uint32_t i = 0; apply.documents && i < UPLOADS * apply.n; i++) {
        free(apply.documents[i / UPLOADS].uploads[i % UPLOADS].written);
        free(apply.documents[i / UPLOADS].uploads[i % UPLOADS].path);
    }
    free(apply.documents);
    yyjson_doc_free(apply.parsed);
    buf_done(&apply.json);
    return status;
}
