/* What ONNX Runtime leaves behind: nothing. No file, no thread, no descriptor, no line on stderr, no telemetry. The
 * library decides about telemetry once per process, so this is a program of its own. */
#include "engine_fixture.h"
#include "onnx_builder.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

static unsigned entries(const char *path)
{
    unsigned n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* y = x * w, large enough that it is worth a second thread. */
static struct pb work_model(void)
{
    enum { SIDE = 256 };
    struct pb graph = {0}, model = {0};
    float *w = calloc(SIDE * SIDE, sizeof *w);
    assert_non_null(w);
    onnx_initializer(&graph, "w", ONNX_FLOAT, "256,256", w, SIDE * SIDE * sizeof *w);
    free(w);
    onnx_node(&graph, "MatMul", "x,w", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N,256");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N,256");
    onnx_model(&model, &graph, 17);
    return model;
}

static void open_run_close(const struct pb *model, uint32_t threads)
{
    struct engine_options options = {
        .model = model->data, .model_bytes = model->size, .library_fd = fixture_library(), .threads = threads};
    struct engine *e = NULL;
    struct error err = {0};
    unsigned before = entries("/proc/self/task");
    float *x = calloc(64 * 256, sizeof *x);
    assert_non_null(x);
    assert_int_equal(engine_onnx.open(&options, &e, &err), 0);
    struct tensor_view input = fixture_view(TENSOR_FP32, 2, (int64_t[]){64, 256}, x, 64 * 256 * sizeof *x);
    struct fixture_sink seen = {0};
    assert_int_equal(fixture_run(e, &input, 1, 64, 1, &seen, &err), 1);
    assert_int_equal(entries("/proc/self/task"), before + threads - 1);
    fixture_sink_done(&seen);
    fixture_view_free(&input);
    e->ops->close(e);
    assert_int_equal(entries("/proc/self/task"), before);
    free(x);
}

static void test_leaves_nothing(void **state)
{
    (void)state;
    char home[] = "/tmp/bulkhead-test-home-XXXXXX", telemetry[64];
    assert_non_null(mkdtemp(home));
    assert_int_equal(setenv("HOME", home, 1), 0);
    assert_int_equal(unsetenv("XDG_CACHE_HOME"), 0);
    assert_int_equal(unsetenv("ORT_DISABLE_TELEMETRY"), 0); /* the engine's own business */
    struct pb model = work_model(), bad = {0}, graph = {0};
    onnx_node(&graph, "Frobnicate", "x", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N");
    onnx_model(&bad, &graph, 17);
    (void)fixture_library(); /* its descriptor counts from here */

    int said = memfd_create("stderr", MFD_CLOEXEC), stderr_kept = dup(STDERR_FILENO);
    assert_true(said >= 0 && stderr_kept >= 0);
    unsigned fds = entries("/proc/self/fd");
    assert_true(dup2(said, STDERR_FILENO) >= 0);
    open_run_close(&model, 1);
    open_run_close(&model, 3);
    open_run_close(&model, 1);
    struct engine *e = NULL;
    struct error err;
    assert_int_equal(fixture_open(&engine_onnx, bad.data, bad.size, &e, &err), -ERROR_REFUSED);
    assert_true(dup2(stderr_kept, STDERR_FILENO) >= 0);

    struct stat stat;
    assert_int_equal(fstat(said, &stat), 0);
    assert_int_equal(stat.st_size, 0);
    assert_int_equal(entries("/proc/self/fd"), fds);
    assert_int_equal(rmdir(home), 0); /* that is: it is empty */
    (void)snprintf(telemetry, sizeof telemetry, "/tmp/mat-debug-%d.log", (int)getpid());
    assert_int_not_equal(access(telemetry, F_OK), 0);
    close(said);
    close(stderr_kept);
    pb_free(&model);
    pb_free(&bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaves_nothing),
    };
    return cmocka_run_group_tests_name("onnx_quiet", tests, NULL, NULL);
}
