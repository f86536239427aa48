/* Images: what is taken of them, and in which words the rest is refused. The layers and layouts are the fuzzers' seeds
 * (test/fuzz/make_corpus.py makes them). */
#include "image/image.h"
#include "image/image_internal.h"

#include "base/buf.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

static void seed_read(const char *target, const char *name, struct buf *bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/test/fuzz/corpus/%s/%s", getenv("BULKHEAD_SOURCE"), target, name);
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail_msg("no seed %s", path);
    buf_init(bytes, MIB);
    for (ssize_t n = 1; n > 0;) {
        char *room = buf_reserve(bytes, 4096);
        n = read(fd, room, 4096);
        buf_commit(bytes, n > 0 ? (size_t)n : 0);
    }
}

/* ---- layers ---- */

static int layer_add(struct tree *tree, const char *name, uint32_t layer, struct error *err)
{
    _buf_ struct buf bytes;
    static struct tar t;
    struct tar_member m;
    int r;
    seed_read("image_tar", name, &bytes);
    t = (struct tar){.rest = {bytes.data, bytes.size}};
    while ((r = tar_next(&t, &m, err)) > 0) {
        r = tree_put(tree, &m, layer, 128, err);
        if (r < 0)
            break;
    }
    return r;
}

/* "a/ b a/c -> t", as the tree is; executables with "*". */
static void tree_is(const struct tree *tree, const char *wanted)
{
    _buf_ struct buf text;
    buf_init(&text, MIB);
    for (size_t i = 0; i < tree->n; i++) {
        const struct tree_node *n = tree->nodes[i];
        buf_format(&text, "%s" STR_FORMAT "%s%s" STR_FORMAT, i > 0 ? " " : "", STR_ARG(n->path),
                   n->type == IMAGE_FOLDER ? "/"
                   : n->executable         ? "*"
                                           : "",
                   n->type == IMAGE_LINK ? " -> " : "", STR_ARG(n->target));
    }
    assert_string_equal(buf_terminate(&text), wanted);
}

static void test_layers(void **state)
{
    (void)state;
    static const struct {
        const char *lower, *upper, *wanted;
    } rows[] = {
        {"files", NULL, "bin -> usr/bin etc/ etc/hosts usr/ usr/bin/ usr/bin/run*"},
        {"files", "empty", "bin -> usr/bin etc/ etc/hosts usr/ usr/bin/ usr/bin/run*"},
        {"whiteouts", NULL, "a/ a/b a/c/ a/c/d"}, /* of its own layer nothing goes */
        {"whiteouts", "whiteouts", "a/ a/b a/c/ a/c/d"},
        {"replaced", NULL, "a"},
        {"hard-link", NULL, "a b c"},
        {"ignored", NULL, ""},
        {"setuid", NULL, "su*"},
        {"link-absolute", NULL, "a -> /b/../c"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tree tree = {.n = 0};
        struct error err = {0};
        int r = layer_add(&tree, rows[i].lower, 0, &err);
        if (r == 0 && rows[i].upper)
            r = layer_add(&tree, rows[i].upper, 1, &err);
        if (r != 0)
            fail_msg("%s: %s", rows[i].lower, err.text);
        tree_is(&tree, rows[i].wanted);
        tree_done(&tree);
    }
}

static struct tar_member file_at(const char *path)
{
    return (struct tar_member){.type = TAR_FILE, .path = str_from(path)};
}

static void put(struct tree *tree, const char *path, uint32_t layer)
{
    struct tar_member m = file_at(path);
    struct error err = {0};
    if (tree_put(tree, &m, layer, 128, &err) != 0)
        fail_msg("%s: %s", path, err.text);
}

/* Whiteouts take what is below, and no neighbour whose name begins alike. */
static void test_whiteouts(void **state)
{
    (void)state;
    struct tree tree = {.n = 0};
    static const char *const lower[] = {"a/x/1", "a/x/2/3", "a/x-y", "a/xy/z", "a/w", "b"};
    for (size_t i = 0; i < 6; i++)
        put(&tree, lower[i], 0);
    put(&tree, "a/x/new", 1);
    put(&tree, "a/.wh.x", 1);
    tree_is(&tree, "a/ a/w a/x-y a/x/new a/xy/ a/xy/z b");
    put(&tree, ".wh.b", 1);
    put(&tree, "a/xy/.wh..wh..opq", 1);
    tree_is(&tree, "a/ a/w a/x-y a/x/new a/xy/");
    put(&tree, ".wh..wh..opq", 2);
    tree_is(&tree, "");
    tree_done(&tree);
}

static void test_long_names(void **state)
{
    (void)state;
    static const char *const seeds[] = {"long-name", "gnu-long-name"};
    for (size_t i = 0; i < 2; i++) {
        struct tree tree = {.n = 0};
        assert_int_equal(layer_add(&tree, seeds[i], 0, NULL), 0);
        assert_int_equal(tree.n, 6);
        assert_int_equal(tree.nodes[4]->path.size, 4 * 101 + 1);
        assert_int_equal(tree.nodes[5]->target.size, 4 * 101 - 1);
        tree_done(&tree);
    }
}

static void test_hostile_layers(void **state)
{
    (void)state;
    static const struct {
        const char *seed, *words;
    } rows[] = {
        {"climbs", "no name inside of a root"},
        {"dot-dot", "no name inside of a root"},
        {"absolute", "no name inside of a root"},
        {"control-character", "no name inside of a root"},
        {"part-too-long", "no name inside of a root"},
        {"name-too-long", "more than 1023 bytes"},
        {"link-out", "a link that leads out of the image"},
        {"link-out-later", "a link that leads out of the image"},
        {"link-absolute-out", "a link that leads out of the image"},
        {"link-empty", "a link that leads out of the image"},
        {"behind-a-link", "behind a link or a file"},
        {"behind-a-file", "behind a link or a file"},
        {"hard-link-out", "a hard link to what is no file of the image"},
        {"hard-link-folder", "a hard link to what is no file of the image"},
        {"device", "a device, a pipe"},
        {"fifo", "a device, a pipe"},
        {"reserved", "/bulkhead and /engine are the server's"},
        {"reserved-link", "/bulkhead and /engine are the server's"},
        {"whiteout-climbs", "not a valid whiteout"},
        {"whiteout-nothing", "not a valid whiteout"},
        {"cut-header", "cut off"},
        {"cut-content", "cut off"},
        {"checksum", "checksum"},
        {"size-huge", "cut off"},
        {"size-base256", "checksum or numbers"},
        {"size-no-number", "checksum or numbers"},
        {"pax-length", "an extended header"},
        {"pax-no-end", "an extended header"},
        {"pax-size", "cut off"},
        {"pax-size-no-number", "a size in an extended header"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tree tree = {.n = 0};
        struct error err = {0};
        int r = layer_add(&tree, rows[i].seed, 0, &err);
        if (r != -ERROR_REFUSED || !strstr(err.text, rows[i].words))
            fail_msg("%s: %d \"%s\" lacks \"%s\"", rows[i].seed, r, err.text, rows[i].words);
        tree_done(&tree);
    }
}

static void test_too_many_files(void **state)
{
    (void)state;
    struct tree tree = {.n = 0};
    struct error err = {0};
    char path[32];
    for (uint32_t i = 0; i < LIMIT_IMAGE_FILES; i++) {
        snprintf(path, sizeof path, "%08u", i);
        put(&tree, path, 0);
    }
    struct tar_member m = file_at("one-more");
    assert_int_equal(tree_put(&tree, &m, 0, 128, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "more than 32768 files"));
    tree_done(&tree);
}

/* ---- packed layers ---- */

static size_t pack_gzip(const char *bytes, size_t size, unsigned char *packed, size_t capacity)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)size;
    z.next_out = packed;
    z.avail_out = (uInt)capacity;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size = z.total_out;
    deflateEnd(&z);
    return size;
}

/* In two pieces: then its size stands nowhere, and the window is as large as was asked for. */
static size_t pack_zstd_window(const char *bytes, size_t size, unsigned char *packed, size_t capacity, int window_log)
{
    ZSTD_CCtx *z = ZSTD_createCCtx();
    ZSTD_inBuffer in = {bytes, size / 2, 0};
    ZSTD_outBuffer out = {packed, capacity, 0};
    assert_non_null(z);
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, window_log)));
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1)));
    while (in.pos < in.size)
        assert_false(ZSTD_isError(ZSTD_compressStream2(z, &out, &in, ZSTD_e_continue)));
    in.size = size;
    assert_int_equal(ZSTD_compressStream2(z, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(z);
    return out.pos;
}

static size_t pack_zstd(const char *bytes, size_t size, unsigned char *packed, size_t capacity)
{
    return pack_zstd_window(bytes, size, packed, capacity, 20);
}

static void unpacks(enum blob_packing packing, size_t (*pack)(const char *, size_t, unsigned char *, size_t),
                    const char *broken)
{
    static unsigned char packed[64 * KIB];
    size_t size = 9 * MIB;
    char *zeros = calloc(1, size);
    struct blob b;
    struct error err = {0};
    size_t n = pack(zeros, size, packed, sizeof packed);
    assert_true(n < 16 * KIB); /* a bomb */
    assert_int_equal(blob_unpack(packing, (struct str){(char *)packed, n}, size, &b, &err), 0);
    assert_int_equal(b.bytes.size, size);
    assert_memory_equal(b.bytes.data, zeros, size);
    blob_done(&b);
    assert_int_equal(blob_unpack(packing, (struct str){(char *)packed, n}, size - 1, &b, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "more than 8 MiB unpacked"));
    for (size_t cut = 0; cut < n; cut += n / 7)
        assert_int_equal(blob_unpack(packing, (struct str){(char *)packed, cut}, size + 1, &b, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, broken));
    size_t twice = n + pack("end", 3, packed + n, sizeof packed - n); /* one file behind the other is one */
    assert_int_equal(blob_unpack(packing, (struct str){(char *)packed, twice}, size + 3, &b, &err), 0);
    assert_int_equal(b.bytes.size, size + 3);
    blob_done(&b);
    packed[n / 2] ^= 0xff;
    assert_int_equal(blob_unpack(packing, (struct str){(char *)packed, n}, size, &b, &err), -ERROR_REFUSED);
    free(zeros);
}

static void test_gzip(void **state)
{
    (void)state;
    unpacks(BLOB_GZIP, pack_gzip, "not whole gzip data");
}

static void test_zstd(void **state)
{
    (void)state;
    unpacks(BLOB_ZSTD, pack_zstd, "not whole zstd data");
    static char bytes[KIB];
    unsigned char packed[2 * KIB];
    struct blob b;
    for (int window_log = 27; window_log <= 28; window_log++) { /* what unpacking costs is bounded before it begins */
        size_t n = pack_zstd_window(bytes, sizeof bytes, packed, sizeof packed, window_log);
        int r = blob_unpack(BLOB_ZSTD, (struct str){(char *)packed, n}, MIB, &b, NULL);
        assert_int_equal(r, window_log == 27 ? 0 : -ERROR_REFUSED);
        if (r == 0)
            blob_done(&b);
    }
}

/* ---- layouts ---- */

static int flatten(const char *seed, int *ret_fd, struct error *err)
{
    _buf_ struct buf bytes;
    seed_read("image", seed, &bytes);
    *ret_fd = memfd_create("root", MFD_CLOEXEC);
    assert_true(*ret_fd >= 0);
    return image_flatten((struct str){bytes.data, bytes.size}, *ret_fd, err);
}

static void test_layouts(void **state)
{
    (void)state;
    static const char *const good[] = {"gzip.tar", "plain.tar", "nested.tar", "zstd.tar"};
    static const uint8_t zeros[IMAGE_DIGEST_BYTES];
    for (size_t i = 0; i < 4; i++) {
        struct error err = {0};
        struct image_root root;
        struct image_entry entry;
        _close_ int fd = -1;
        if (flatten(good[i], &fd, &err) != 0)
            fail_msg("%s: %s", good[i], err.text);
        size_t size = (size_t)lseek(fd, 0, SEEK_END), n = 0;
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        assert_ptr_not_equal(bytes, MAP_FAILED);
        assert_int_equal(image_root_open((struct str){bytes, size}, &root, NULL), 0);
        assert_memory_not_equal(root.head.manifest, zeros, sizeof zeros);
        assert_int_equal(memcmp(root.head.index, zeros, sizeof zeros) != 0, i == 2);
        while (image_root_next(&root, &entry, NULL) > 0) {
            n++;
            if (str_equal(entry.path, STR("etc/hosts")))
                assert_true(str_equal(entry.content, STR("x")));
            if (str_equal(entry.path, STR("usr/bin/run")))
                assert_true(entry.executable && str_equal(entry.content, STR("#!")));
        }
        assert_int_equal(n, i == 0 || i == 3 ? 10 : 6);
        munmap(bytes, size);
    }
}

static void test_hostile_layouts(void **state)
{
    (void)state;
    static const struct {
        const char *seed, *words;
    } rows[] = {
        {"diff-id.tar", "layer 1 is not, unpacked, what the configuration says"},
        {"diff-ids-few.tar", "different numbers of layers"},
        {"no-layers.tar", "different numbers of layers"},
        {"architecture.tar", "not for linux/"},
        {"layer-size.tar", "does not have the size that is said of it"},
        {"config-size.tar", "does not have the size that is said of it"},
        {"layer-digest.tar", "it lacks the file blobs/sha256/0000"},
        {"layer-sha512.tar", "not sha256: and 64"},
        {"layer-zstd.tar", "not whole zstd data"},
        {"layer-lz4.tar", "what is read is plain tar, gzip and zstd"},
        {"layer-not-gzip.tar", "not whole gzip data"},
        {"two-images.tar", "2 images for linux/"},
        {"no-image.tar", "no image for linux/"},
        {"nested-twice.tar", "no image for linux/"},
        {"layer-climbs.tar", "layer 1: a/../../b: no name inside of a root"},
        {"no-layout.tar", "no OCI image layout"},
        {"no-index.tar", "no index.json"},
        {"index-no-json.tar", "its index.json is no JSON"},
        {"cut.tar", "cut off"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err = {0};
        _close_ int fd = -1;
        int r = flatten(rows[i].seed, &fd, &err);
        if (r != -ERROR_REFUSED || !strstr(err.text, rows[i].words))
            fail_msg("%s: %d \"%s\" lacks \"%s\"", rows[i].seed, r, err.text, rows[i].words);
    }
}

/* Any one bit of the layout: it is refused, or gives the same root (what no digest covers is oci-layout and paddings).
 */
static void test_every_changed_blob_is_noticed(void **state)
{
    (void)state;
    _buf_ struct buf bytes;
    struct error err = {0};
    uint8_t wanted[IMAGE_DIGEST_BYTES], found[IMAGE_DIGEST_BYTES];
    seed_read("image", "plain.tar", &bytes);
    for (size_t at = SIZE_MAX; at == SIZE_MAX || at < bytes.size; at += at == SIZE_MAX ? 1 : 97) {
        _close_ int fd = memfd_create("root", MFD_CLOEXEC);
        if (at != SIZE_MAX)
            bytes.data[at] ^= 4;
        int r = image_flatten((struct str){bytes.data, bytes.size}, fd, &err);
        if (at != SIZE_MAX)
            bytes.data[at] ^= 4;
        if (r < 0) {
            assert_int_equal(r, -ERROR_REFUSED);
            continue;
        }
        size_t size = (size_t)lseek(fd, 0, SEEK_END);
        void *root = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        assert_int_equal(blob_digest((struct str){root, size}, at == SIZE_MAX ? wanted : found, NULL), 0);
        munmap(root, size);
        if (at != SIZE_MAX)
            assert_memory_equal(found, wanted, sizeof wanted);
    }
}

/* ---- onto a file system ---- */

static void test_unpack(void **state)
{
    (void)state;
    char folder[] = "/tmp/bulkhead-image-XXXXXX", path[64], target[32] = "";
    struct stat info;
    _buf_ struct buf bytes;
    assert_non_null(mkdtemp(folder));
    _close_ int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    seed_read("image_root", "three", &bytes);
    assert_int_equal(image_root_unpack((struct str){bytes.data, bytes.size}, dir, NULL), 0);
    assert_int_equal(fstatat(dir, "a", &info, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(info.st_mode, S_IFREG | 0444);
    assert_int_equal(info.st_size, 5);
    assert_int_equal(fstatat(dir, "b", &info, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(info.st_mode, S_IFDIR | 0755);
    assert_int_equal(readlinkat(dir, "b/c", target, sizeof target), 1);
    assert_string_equal(target, "a");
    struct error err = {0}; /* it is not empty any more */
    assert_int_equal(image_root_unpack((struct str){bytes.data, bytes.size}, dir, &err), -ERROR_IO);
    static const char *const bad[] = {"order", "content-outside", "climbs", "cut", "count"};
    static const char *const made[] = {"b/c", "b", "a"};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(unlinkat(dir, made[i], i == 1 ? AT_REMOVEDIR : 0), 0);
    for (size_t i = 0; i < 5; i++) {
        _buf_ struct buf spoilt;
        seed_read("image_root", bad[i], &spoilt);
        if (image_root_unpack((struct str){spoilt.data, spoilt.size}, dir, &err) != -ERROR_REFUSED)
            fail_msg("%s was taken", bad[i]);
        for (size_t k = 0; k < 3; k++)
            (void)unlinkat(dir, made[k], k == 1 ? AT_REMOVEDIR : 0);
    }
    snprintf(path, sizeof path, "%s", folder);
    assert_int_equal(rmdir(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_whiteouts),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_hostile_layers),
        cmocka_unit_test(test_too_many_files),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_zstd),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_hostile_layouts),
        cmocka_unit_test(test_every_changed_blob_is_noticed),
        cmocka_unit_test(test_unpack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
