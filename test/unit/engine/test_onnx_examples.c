/* The trained models of examples/ through the engine and through ONNX Runtime directly: the same bits for the same
 * batch. */
#include "engine_fixture.h"

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

enum { ROWS_MAX = 32 };

static const OrtApi *api;

static void must(OrtStatus *status)
{
    if (status)
        fail_msg("%s", api->GetErrorMessage(status));
}

static char *read_example(const char *name, size_t *ret_size)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/examples/%s", getenv("BULKHEAD_SOURCE"), name);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("cannot open %s", path);
    char *data = malloc(1 << 20);
    assert_non_null(data);
    *ret_size = fread(data, 1, 1 << 20, file);
    assert_true(*ret_size > 0 && *ret_size < 1 << 20);
    fclose(file);
    return data;
}

static OrtSession *direct_open(const char *model, size_t size)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fixture_library());
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* the engine has loaded it: this is the same one */
    assert_non_null(library);
    const OrtApiBase *(*base)(void);
    *(void **)&base = dlsym(library, "OrtGetApiBase");
    api = base()->GetApi(ORT_API_VERSION);
    static OrtEnv *env;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    if (!env)
        must(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "direct", &env));
    must(api->CreateSessionOptions(&options));
    must(api->SetIntraOpNumThreads(options, 1));
    must(api->CreateSessionFromArray(env, model, size, options, &session));
    api->ReleaseSessionOptions(options);
    return session;
}

/* Runs it and compares each output with what the engine gave. */
static void compare_direct(OrtSession *session, const struct tensor_signature *s, const struct tensor_view *input,
                           const struct fixture_sink *seen)
{
    OrtMemoryInfo *memory = NULL;
    OrtValue *in = NULL, *out[LIMIT_TENSORS] = {NULL};
    const char *in_name = s->inputs[0].name, *out_names[LIMIT_TENSORS];
    for (uint32_t i = 0; i < s->n_outputs; i++)
        out_names[i] = s->outputs[i].name;
    must(api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    must(api->CreateTensorWithDataAsOrtValue(memory, (void *)(uintptr_t)input->data, input->size, input->shape.dims,
                                             input->shape.rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &in));
    must(api->Run(session, NULL, &in_name, (const OrtValue *const *)&in, 1, out_names, s->n_outputs, out));
    for (uint32_t i = 0; i < s->n_outputs; i++) {
        void *data = NULL;
        must(api->GetTensorMutableData(out[i], &data));
        assert_true(seen->outputs[i].size > 0);
        assert_memory_equal(seen->outputs[i].data, data, seen->outputs[i].size);
        api->ReleaseValue(out[i]);
    }
    api->ReleaseValue(in);
    api->ReleaseMemoryInfo(memory);
}

static void same_bits(const char *name)
{
    size_t size;
    char *model = read_example(name, &size);
    struct engine *e = fixture_must_open(&engine_onnx, model, size);
    struct tensor_signature *s = fixture_signature(e);
    OrtSession *session = direct_open(model, size);
    free(model);
    assert_int_equal(s->n_inputs, 1);
    assert_int_equal(s->inputs[0].dtype, TENSOR_FP32);
    assert_true(s->batchable);
    for (int64_t rows = 1; rows <= ROWS_MAX; rows = rows * 2 + 1) {
        struct tensor_shape shape = s->inputs[0].shape;
        uint64_t elements;
        shape.dims[0] = rows;
        assert_int_equal(tensor_shape_elements(&shape, &elements), 0);
        float *x = calloc(elements, sizeof *x);
        assert_non_null(x);
        for (uint64_t i = 0; i < elements; i++)
            x[i] = (float)(i * 2654435761u % 1000) / 61.0f;
        struct tensor_view input = fixture_view(TENSOR_FP32, shape.rank, shape.dims, x, elements * sizeof *x);
        struct fixture_sink seen = {0};
        struct error err;
        if (fixture_run(e, &input, 1, (uint32_t)rows, UINT64_MAX, &seen, &err) != 1)
            fail_msg("%s", err.text);
        compare_direct(session, s, &input, &seen);
        fixture_sink_done(&seen);
        fixture_view_free(&input);
        free(x);
    }
    api->ReleaseSession(session);
    free(s);
    e->ops->close(e);
}

static void test_digits(void **state)
{
    (void)state;
    same_bits("digits/digits.onnx");
}

static void test_diagnosis(void **state)
{
    (void)state;
    same_bits("diagnosis/diagnosis.onnx");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digits),
        cmocka_unit_test(test_diagnosis),
    };
    return cmocka_run_group_tests_name("onnx_examples", tests, NULL, NULL);
}
