/* The bare engine, for comparison: ONNX Runtime's C API in a loop, one process, no server.
 *
 *   ort_loop LIBRARY MODEL INPUT DIMS PAYLOAD RUN_MS
 *
 * Runs the model on one FP32 input of shape DIMS (comma-separated) filled from the file PAYLOAD, on one thread, and
 * takes all outputs, for RUN_MS after a warm-up of a fifth of that. Session options are those that the worker uses.
 * Prints one JSON object: {"inferences":…, "seconds":…, "cpu_s":…, "p50_us":…}. */
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TENSORS_MAX = 16, RANK_MAX = 8, SAMPLES_MAX = 4 << 20 };

static const OrtApi *api;

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "ort_loop: %s: %s\n", what, why);
    exit(1);
}

static void check(OrtStatus *status, const char *what)
{
    if (status)
        die(what, api->GetErrorMessage(status));
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void library_open(const char *path)
{
    (void)setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        die(path, dlerror());
    const OrtApiBase *(*base)(void);
    *(void **)&base = dlsym(handle, "OrtGetApiBase");
    api = base ? base()->GetApi(ORT_API_VERSION) : NULL;
    if (!api)
        die(path, "not an ONNX Runtime of this API version");
}

static OrtSession *session_open(const char *model)
{
    OrtEnv *env = NULL;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    check(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "loop", &env), "environment");
    check(api->CreateSessionOptions(&options), "options");
    check(api->SetIntraOpNumThreads(options, 1), "threads");
    check(api->SetInterOpNumThreads(options, 1), "threads");
    check(api->CreateSession(env, model, options, &session), model);
    return session;
}

static OrtValue *input_make(char *dims_text, const char *file)
{
    int64_t dims[RANK_MAX];
    size_t rank = 0, bytes = sizeof(float);
    for (char *word; (word = strsep(&dims_text, ",")) && rank < RANK_MAX; rank++) {
        dims[rank] = strtoll(word, NULL, 10);
        bytes *= (size_t)dims[rank];
    }
    void *data = malloc(bytes);
    FILE *payload = fopen(file, "rb");
    if (!data || !payload || fread(data, 1, bytes, payload) != bytes)
        die(file, "cannot be read, or is shorter than the shape");
    (void)fclose(payload);
    OrtMemoryInfo *memory = NULL;
    OrtValue *value = NULL;
    check(api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "memory");
    check(api->CreateTensorWithDataAsOrtValue(memory, data, bytes, dims, rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                              &value),
          "input");
    return value;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void loop(OrtSession *session, const char *input, OrtValue *value, uint64_t run_ns)
{
    static uint32_t samples[SAMPLES_MAX];
    OrtAllocator *allocator = NULL;
    char *names[TENSORS_MAX];
    size_t n = 0, n_samples = 0;
    check(api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
    check(api->SessionGetOutputCount(session, &n), "outputs");
    if (n > TENSORS_MAX)
        die("outputs", "too many");
    for (size_t i = 0; i < n; i++)
        check(api->SessionGetOutputName(session, i, allocator, &names[i]), "output");
    uint64_t begin_ns = 0, begin_cpu_ns = 0, now_ns = clock_ns(CLOCK_MONOTONIC);
    const uint64_t warm_ns = now_ns + run_ns / 5;
    while (n_samples < SAMPLES_MAX && (begin_ns == 0 || now_ns < begin_ns + run_ns)) {
        OrtValue *results[TENSORS_MAX] = {0};
        uint64_t before_ns = now_ns;
        check(
            api->Run(session, NULL, &input, (const OrtValue *const *)&value, 1, (const char *const *)names, n, results),
            "run");
        for (size_t i = 0; i < n; i++)
            api->ReleaseValue(results[i]);
        now_ns = clock_ns(CLOCK_MONOTONIC);
        if (begin_ns != 0) {
            samples[n_samples++] = (uint32_t)(now_ns - before_ns);
        } else if (now_ns >= warm_ns) {
            begin_ns = now_ns;
            begin_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        }
    }
    uint64_t cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin_cpu_ns;
    qsort(samples, n_samples, sizeof *samples, compare);
    (void)printf("{\"inferences\":%zu,\"seconds\":%.6f,\"cpu_s\":%.6f,\"p50_us\":%.2f}\n", n_samples,
                 (double)(now_ns - begin_ns) / 1e9, (double)cpu_ns / 1e9, samples[n_samples / 2] / 1e3);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        die("usage", "ort_loop LIBRARY MODEL INPUT DIMS PAYLOAD RUN_MS");
    library_open(argv[1]);
    OrtSession *session = session_open(argv[2]);
    loop(session, argv[3], input_make(argv[4], argv[5]), strtoull(argv[6], NULL, 10) * 1000000u);
    return 0;
}
