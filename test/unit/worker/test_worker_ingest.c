/* The one-shot that opens a model, and an adapter with it: a process of its own, behind its last filter. */
#include "test/unit/engine/llama_fixture.h"
#include "worker/worker.h"

#include "bus/bus.h"

#include <signal.h>
#include <sys/wait.h>

enum { WAIT_MS = 60000 };

static struct llama_model_file model;

/* The code that it answers with, 0 when the model is described; its words in *err. */
static int ingest(const char *engine, const struct llama_model_file *adapter, struct error *err)
{
    int pair[2], sealed[2];
    struct bus_worker_config body = {.model_bytes = model.size,
                                     .adapter_bytes = adapter ? adapter->size : 0,
                                     .threads = 1,
                                     .library = BUS_LIBRARY_FD};
    (void)snprintf(body.engine, sizeof body.engine, "%s", engine);
    assert_int_equal(bus_pair(pair, err), 0);
    assert_int_equal(bus_memfd("model", model.data, model.size, &sealed[0]), 0);
    const struct llama_model_file *other = adapter ? adapter : &model;
    assert_int_equal(bus_memfd("adapter", other->data, other->size, &sealed[1]), 0);
    int fds[3] = {sealed[0], llama_fixture_library(), sealed[1]};
    assert_int_equal(bus_send(pair[0], BUS_SUPERVISOR, BUS_INGEST, BUS_INGEST_CONFIG, &body, fds, 3), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(ingest_run(pair[1]));
    (void)close(pair[1]);
    struct bus_message m;
    int r = bus_wait(pair[0], BUS_SUPERVISOR, BUS_INGEST, WAIT_MS, &m);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)close(pair[0]);
    (void)close(sealed[0]);
    (void)close(sealed[1]);
    memset(err, 0, sizeof *err);
    if (r < 0)
        return r;
    if (m.type == BUS_DESCRIBE_FAILED)
        *err = m.body.DESCRIBE_FAILED.error;
    bus_message_done(&m);
    return err->code;
}

static struct llama_model_file built(uint64_t seed, const char *type)
{
    struct buf b;
    buf_init(&b, MIB);
    tiny_build_adapter_as(&b, seed, type);
    struct llama_model_file m = llama_model_write(b.data, b.size);
    buf_done(&b);
    return m;
}

static void test_fits(void **state)
{
    (void)state;
    struct error err;
    struct llama_model_file adapter = built(3, "lora");
    assert_int_equal(ingest("llama", NULL, &err), 0);
    assert_int_equal(ingest("llama", &adapter, &err), 0);
    llama_model_done(&adapter);
}

static void test_does_not(void **state)
{
    (void)state;
    struct error err;
    struct llama_model_file adapter = built(3, "lokr");
    assert_int_equal(ingest("llama", &adapter, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "adapter.type"));
    assert_int_equal(ingest("llama", &model, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "general.type"));
    llama_model_done(&adapter);
}

/* Sound in every field, and no model lives on it: numbers that grow beyond all bounds. */
static void test_is_tried(void **state)
{
    (void)state;
    struct error err;
    struct buf b;
    buf_init(&b, MIB);
    tiny_build_adapter(&b, 3);
    float huge = 3e38f;
    for (size_t at = b.size - 4096; at < b.size; at += sizeof huge)
        memcpy(b.data + at, &huge, sizeof huge);
    struct llama_model_file adapter = llama_model_write(b.data, b.size);
    buf_done(&b);
    assert_int_equal(ingest("llama", &adapter, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "stepped with the adapter"));
    llama_model_done(&adapter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits),
        cmocka_unit_test(test_does_not),
        cmocka_unit_test(test_is_tried),
    };
    model = llama_tiny(1);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    llama_model_done(&model);
    return failed;
}
