/* The file of the embedded back-end: who may open it, what stands in it, what lies beside it. */
#include "store_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->ops = &store_sqlite;
    fixture_folder(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fixture_remove(f);
    free(f);
    return 0;
}

static void write_some(struct fixture *f, uint32_t n)
{
    must_begin(f);
    uint64_t uid = must_uid(f);
    char name[32];
    (void)snprintf(name, sizeof name, "t%llu", (unsigned long long)uid);
    assert_int_equal(put_resource(f, KIND_TENANT, uid, "", name, "{}"), 0);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(put_key(f, (uint32_t)uid * 1000 + i, uid), 0);
    (void)must_commit(f);
}

static void expect_refused(struct fixture *f, int code, const char *text)
{
    struct error err = {0};
    struct store *store = NULL;
    assert_int_equal(f->ops->open(f->path, &store, &err), code);
    assert_string_equal(err.text, text);
    assert_null(store);
}

static void run_sql(struct fixture *f, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_reopening_keeps_everything(void **state)
{
    struct fixture *f = *state;
    _buf_ struct buf before, after;
    fixture_open(f);
    for (int i = 0; i < 5; i++)
        write_some(f, 20);
    dump(f, &before);
    fixture_close(f);
    fixture_open(f);
    dump(f, &after);
    assert_string_equal(before.data, after.data);
    must_begin(f);
    assert_int_equal(must_uid(f), 6); /* uids go on */
    assert_int_equal(must_commit(f), 6);
    fixture_close(f);
}

static void test_only_its_user_may_read_it(void **state)
{
    struct fixture *f = *state;
    mode_t before = umask(0);
    fixture_open(f);
    write_some(f, 1);
    struct stat status;
    char log[128];
    (void)snprintf(log, sizeof log, "%s-wal", f->path);
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(stat(log, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    fixture_close(f);
    (void)umask(before);
}

static void test_nothing_else_lies_beside_it(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    write_some(f, 500);
    DIR *folder = opendir(f->folder);
    assert_non_null(folder);
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "store.db") != 0)
            assert_string_equal(entry->d_name, "store.db-wal"); /* no -shm: the index of the log is private */
    closedir(folder);
    fixture_close(f);
}

/* In a root of its own: no /dev/urandom, no /tmp, no /proc. */
static void test_needs_nothing_but_its_folder(void **state)
{
    struct fixture *f = *state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (chroot(f->folder) != 0)
            _exit(errno == EPERM ? 77 : 1);
        if (chdir("/") != 0)
            _exit(1);
        (void)snprintf(f->path, sizeof f->path, "store.db");
        fixture_open(f);
        store_sql(f->store)->checkpoint_pages = 2;
        for (int i = 0; i < 5; i++)
            write_some(f, 100);
        fixture_close(f);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* without the right to chroot */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fixture_open(f);
    uint64_t revision = 0;
    assert_int_equal(f->ops->revision(f->store, &revision, NULL), 0);
    assert_int_equal(revision, 5);
    fixture_close(f);
}

static void test_one_process_at_a_time(void **state)
{
    struct fixture *f = *state;
    int ready[2], done[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(done[1]);
        fixture_open(f);
        if (write(ready[1], "x", 1) != 1 || read(done[0], &byte, 1) != 0)
            _exit(1);
        _exit(0); /* without closing: the kernel gives the lock back */
    }
    close(done[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    expect_refused(f, -ERROR_REFUSED, "the store is in use by another process");
    close(done[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ready[0]);
    close(ready[1]);
    fixture_open(f);
    fixture_close(f);
}

static void test_newer_release_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    write_some(f, 1);
    fixture_close(f);
    run_sql(f, "PRAGMA user_version = 1000");
    expect_refused(f, -ERROR_REFUSED,
                   "the store was written by a newer release (schema 1000; this one knows 4): use that release, or go "
                   "back to a copy of the store from before");
}

static void test_foreign_files_are_refused(void **state)
{
    struct fixture *f = *state;
    run_sql(f, "CREATE TABLE t (x)");
    expect_refused(f, -ERROR_REFUSED, "the store's file is a database of another program");
    assert_int_equal(unlink(f->path), 0);
    int fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char text[4096];
    memset(text, 'x', sizeof text);
    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    close(fd);
    expect_refused(f, -ERROR_REFUSED, "the store's file is not a database");
    char found[sizeof text];
    fd = open(f->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, found, sizeof found), sizeof found);
    close(fd);
    assert_memory_equal(found, text, sizeof text); /* and left as it was */
}

static void test_damage_is_found(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    write_some(f, 2000);
    fixture_close(f);
    struct stat status;
    assert_int_equal(stat(f->path, &status), 0);
    int fd = open(f->path, O_WRONLY | O_CLOEXEC);
    char zeros[4096] = {0};
    for (off_t page = status.st_size / 4096 / 2; page < status.st_size / 4096; page += 3)
        assert_int_equal(pwrite(fd, zeros, sizeof zeros, page * 4096), sizeof zeros);
    close(fd);
    struct error err = {0};
    struct store *store = NULL;
    assert_int_equal(f->ops->open(f->path, &store, &err), -ERROR_IO);
    assert_null(strstr(err.text, f->folder)); /* no path in what users see */
}

static void test_folder_must_exist(void **state)
{
    struct fixture *f = *state;
    struct fixture missing = *f;
    (void)snprintf(missing.path, sizeof missing.path, "%s/none/store.db", f->folder);
    expect_refused(&missing, -ERROR_IO, "the store's file cannot be created");
    assert_int_equal(symlink("elsewhere", f->path), 0); /* never through a link */
    struct error err = {0};
    struct store *store = NULL;
    assert_true(f->ops->open(f->path, &store, &err) < 0);
}

/* Names that mean something else to SQLite are names of files here. */
static void test_special_names_are_files(void **state)
{
    struct fixture *f = *state;
    char before[512];
    struct error err = {0};
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(f->folder), 0);
    assert_int_equal(f->ops->open(":memory:", &f->store, &err), 0);
    fixture_close(f);
    assert_int_equal(unlink(":memory:"), 0);
    assert_int_equal(f->ops->open("file:x?mode=memory", &f->store, &err), 0);
    fixture_close(f);
    assert_int_equal(unlink("file:x?mode=memory"), 0);
    assert_int_equal(chdir(before), 0);
}

static void test_revoked_hashes_are_overwritten(void **state)
{
    struct fixture *f = *state;
    bool existed = false;
    fixture_open(f);
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), 0);
    assert_int_equal(put_key(f, 0xC7, 1), 0); /* its hash: 32 bytes of that */
    (void)must_commit(f);
    fixture_close(f);
    fixture_open(f);
    must_begin(f);
    assert_int_equal(f->ops->key_delete(f->store, STR("Key0000000000199"), &existed, NULL), 0);
    assert_true(existed);
    (void)must_commit(f);
    fixture_close(f);
    char bytes[256 * 1024], hash[STORE_DIGEST_BYTES];
    memset(hash, 0xC7, sizeof hash);
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, bytes, sizeof bytes);
    close(fd);
    assert_true(size > 0 && size < (ssize_t)sizeof bytes);
    assert_null(memmem(bytes, (size_t)size, hash, sizeof hash));
}

#define FILE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_reopening_keeps_everything),
        FILE_TEST(test_only_its_user_may_read_it),
        FILE_TEST(test_nothing_else_lies_beside_it),
        FILE_TEST(test_needs_nothing_but_its_folder),
        FILE_TEST(test_one_process_at_a_time),
        FILE_TEST(test_newer_release_is_refused),
        FILE_TEST(test_foreign_files_are_refused),
        FILE_TEST(test_damage_is_found),
        FILE_TEST(test_folder_must_exist),
        FILE_TEST(test_special_names_are_files),
        FILE_TEST(test_revoked_hashes_are_overwritten),
    };
    return cmocka_run_group_tests_name("store_file", tests, NULL, NULL);
}
