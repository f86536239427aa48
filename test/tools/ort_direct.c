/*
 * Runs a model with ONNX Runtime's C API directly: the independent oracle of the live tests. Shares no code with
 * src/engine on purpose.
 *
 *   ort_direct LIBRARY MODEL THREADS ROWS [INPUT=DATATYPE:DIMS:FILE...]
 *   ort_direct build/engines/libonnxruntime.so.1 digits.onnx 1 1 image=FP32:360,1,8,8:samples.bin >outputs.bin
 *
 * FILE holds the tensor, row-major and little-endian (BYTES: each element behind its length of 4 bytes), DIMS its
 * shape, empty for a scalar. The model runs on ROWS entries of axis 0 at a time (the last run on what is left); 0,
 * which BYTES need: on everything at once. To stdout go all outputs in the model's order, each complete: the runs'
 * results one behind the other. To stderr goes one line per output: NAME DATATYPE BYTES DIMS, where DIMS are those of
 * the first run. Exit 0; 1 with a line on stderr; 2 usage.
 *
 *   ort_direct LIBRARY -
 *
 * reads such jobs from stdin, one a line, tab-separated: OUT MODEL THREADS ROWS [INPUT=…]. Each runs in a process of
 * its own, with stdout in the file OUT and stderr in OUT.txt. Behind each, one line on stdout: its exit status, or
 * minus the signal that killed it.
 */

#include <onnxruntime_c_api.h>

#include <dlfcn.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TENSORS_MAX = 64, RANK_MAX = 8 };

static const struct {
    const char *name;
    ONNXTensorElementDataType type;
    size_t bytes; /* 0: it varies */
} datatypes[] = {
    {"BOOL", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1},     {"UINT8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1},
    {"UINT16", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, 2}, {"UINT32", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, 4},
    {"UINT64", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, 8}, {"INT8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1},
    {"INT16", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, 2},   {"INT32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},
    {"INT64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},   {"FP16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2},
    {"BF16", ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, 2}, {"FP32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4},
    {"FP64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8},   {"BYTES", ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, 0},
};
enum { DATATYPES = sizeof datatypes / sizeof datatypes[0] };

struct input {
    char name[256];
    int datatype; /* index into datatypes */
    size_t rank;
    int64_t dims[RANK_MAX];
    char *data; /* the whole file */
    size_t size;
    size_t row_bytes;
};

struct output {
    char *name;
    int datatype;
    size_t rank;
    int64_t dims[RANK_MAX]; /* of the first run */
    char *data;
    size_t size;
    bool seen;
};

static const OrtApi *api;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "ort_direct: %s: %s\n", what, why);
    _Exit(1); /* not exit: a forked job must not turn back the stdin that it shares */
}

static void check(OrtStatus *status, const char *what)
{
    if (status != NULL) {
        fail(what, api->GetErrorMessage(status));
    }
}

static char *read_file(const char *path, size_t *ret_size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail(path, "cannot open");
    }
    char *data = NULL;
    size_t size = 0, got;
    do {
        char *grown = realloc(data, size + 65536);
        if (grown == NULL) {
            fail(path, "out of memory");
        }
        data = grown;
        got = fread(data + size, 1, 65536, file);
        size += got;
    } while (got > 0);
    fclose(file);
    *ret_size = size;
    return data;
}

static int datatype_find(const char *name, ONNXTensorElementDataType type)
{
    for (int i = 0; i < DATATYPES; i++) {
        if (name != NULL ? strcmp(datatypes[i].name, name) == 0 : datatypes[i].type == type) {
            return i;
        }
    }
    fail(name != NULL ? name : "output", "not a datatype known here");
    return -1;
}

/* INPUT=DATATYPE:DIMS:FILE */
static struct input input_parse(char *argument)
{
    struct input input = {0};
    char *name = argument, *equals = strrchr(argument, '='), *datatype = equals ? equals + 1 : NULL;
    char *dims = datatype ? strchr(datatype, ':') : NULL, *file = dims ? strchr(dims + 1, ':') : NULL;
    if (file == NULL || equals - name >= (int)sizeof input.name) {
        fail(argument, "not INPUT=DATATYPE:DIMS:FILE");
    }
    *equals = *dims++ = *file++ = '\0';
    memcpy(input.name, name, strlen(name) + 1);
    input.datatype = datatype_find(datatype, 0);
    uint64_t bytes = datatypes[input.datatype].bytes;
    for (char *at = dims; *at != '\0'; at += *at == ',') {
        int64_t dim = strtoll(at, &at, 10);
        if (dim < 0 || dim > INT32_MAX || (*at != ',' && *at != '\0') || input.rank == RANK_MAX) {
            fail(name, "bad dims");
        }
        input.dims[input.rank++] = dim;
        bytes *= (uint64_t)dim;
    }
    input.data = read_file(file, &input.size);
    if (datatypes[input.datatype].bytes > 0 && input.size != bytes) {
        fail(name, "the file's size is not that of the shape");
    }
    input.row_bytes = input.rank > 0 && input.dims[0] > 0 ? input.size / (size_t)input.dims[0] : input.size;
    return input;
}

static char *output_grow(struct output *output, size_t bytes)
{
    char *grown = realloc(output->data, output->size + bytes + 1);
    if (grown == NULL) {
        fail("output", "out of memory");
    }
    output->data = grown;
    output->size += bytes;
    return grown + output->size - bytes;
}

static void strings_append(struct output *output, OrtValue *value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        check(api->GetStringTensorElementLength(value, i, &size), "output");
        uint32_t prefix = (uint32_t)size;
        memcpy(output_grow(output, sizeof prefix), &prefix, sizeof prefix);
        check(api->GetStringTensorElement(value, size, i, output_grow(output, size)), "output");
    }
}

static void output_append(struct output *output, OrtValue *value)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type;
    size_t rank = 0, count = 0;
    int64_t dims[RANK_MAX] = {0};
    void *data = NULL;
    check(api->GetTensorTypeAndShape(value, &info), "output");
    check(api->GetTensorElementType(info, &type), "output");
    check(api->GetDimensionsCount(info, &rank), "output");
    if (rank > RANK_MAX) {
        fail("output", "rank above 8");
    }
    check(api->GetDimensions(info, dims, rank), "output");
    check(api->GetTensorShapeElementCount(info, &count), "output");
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (!output->seen) {
        output->seen = true;
        output->datatype = datatype_find(NULL, type);
        output->rank = rank;
        memcpy(output->dims, dims, sizeof dims);
    }
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) {
        strings_append(output, value, count);
    } else {
        size_t bytes = count * datatypes[output->datatype].bytes;
        char *to = output_grow(output, bytes);
        check(api->GetTensorMutableData(value, &data), "output");
        if (bytes > 0) { /* else there may be no data */
            memcpy(to, data, bytes);
        }
    }
    api->ReleaseValue(value);
}

static OrtValue *strings_value(const struct input *input)
{
    OrtAllocator *allocator = NULL;
    OrtValue *value = NULL;
    const char *at = input->data, *end = input->data + input->size;
    uint64_t count = 1;
    for (size_t d = 0; d < input->rank; d++) {
        count *= (uint64_t)input->dims[d];
    }
    check(api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
    check(
        api->CreateTensorAsOrtValue(allocator, input->dims, input->rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, &value),
        input->name);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t size = 0;
        char *to = NULL;
        if (end - at >= (ptrdiff_t)sizeof size) {
            memcpy(&size, at, sizeof size);
            at += sizeof size;
        }
        if (end - at < (ptrdiff_t)size) {
            fail(input->name, "the file is too short");
        }
        check(api->GetResizedStringTensorElementBuffer(value, i, size, &to), input->name);
        memcpy(to, at, size);
        at += size;
    }
    if (at != end) {
        fail(input->name, "the file is too long");
    }
    return value;
}

/* One run on `rows` entries of axis 0 from `row`; rows 0: everything. */
static void run(OrtSession *session, const struct input *inputs, size_t n_inputs, int64_t row, int64_t rows,
                struct output *outputs, size_t n_outputs)
{
    OrtMemoryInfo *memory = NULL;
    OrtValue *values[TENSORS_MAX] = {0}, *results[TENSORS_MAX] = {0};
    const char *names[TENSORS_MAX], *result_names[TENSORS_MAX];
    check(api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "memory");
    for (size_t i = 0; i < n_inputs; i++) {
        const struct input *input = &inputs[i];
        int64_t dims[RANK_MAX];
        names[i] = input->name;
        if (datatypes[input->datatype].bytes == 0) {
            values[i] = strings_value(input);
            continue;
        }
        memcpy(dims, input->dims, sizeof dims);
        size_t bytes = input->row_bytes;
        if (input->rank > 0) {
            dims[0] = rows > 0 ? rows : dims[0];
            bytes *= (size_t)dims[0];
        }
        check(api->CreateTensorWithDataAsOrtValue(memory, input->data + (size_t)row * input->row_bytes, bytes, dims,
                                                  input->rank, datatypes[input->datatype].type, &values[i]),
              input->name);
    }
    for (size_t i = 0; i < n_outputs; i++) {
        result_names[i] = outputs[i].name;
    }
    check(api->Run(session, NULL, names, (const OrtValue *const *)values, n_inputs, result_names, n_outputs, results),
          "run");
    for (size_t i = 0; i < n_outputs; i++) {
        output_append(&outputs[i], results[i]);
    }
    for (size_t i = 0; i < n_inputs; i++) {
        api->ReleaseValue(values[i]);
    }
    api->ReleaseMemoryInfo(memory);
}

static void library_open(const char *library)
{
    /* Microsoft's builds carry a telemetry client; it looks at this before anything else. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        fail(library, dlerror());
    }
    const OrtApiBase *(*base)(void);
    *(void **)&base = dlsym(handle, "OrtGetApiBase");
    api = base != NULL ? base()->GetApi(ORT_API_VERSION) : NULL;
    if (api == NULL) {
        fail(library, "not an ONNX Runtime of this API version");
    }
}

static OrtSession *session_open(const char *model, int threads)
{
    OrtEnv *env = NULL;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    check(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "direct", &env), "environment"); /* stderr is for our lines */
    check(api->CreateSessionOptions(&options), "options");
    check(api->SetIntraOpNumThreads(options, threads), "threads");
    check(api->CreateSession(env, model, options, &session), model); /* by its path: finds its external data */
    return session;
}

static void outputs_print(const struct output *outputs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct output *output = &outputs[i];
        fprintf(stderr, "%s %s %zu ", output->name, datatypes[output->datatype].name, output->size);
        for (size_t d = 0; d < output->rank; d++) {
            fprintf(stderr, "%s%" PRId64, d > 0 ? "," : "", output->dims[d]);
        }
        fprintf(stderr, "\n");
        if (fwrite(output->data, 1, output->size, stdout) != output->size) {
            fail("stdout", "cannot write");
        }
    }
    if (fflush(stdout) != 0) {
        fail("stdout", "cannot write");
    }
}

/* MODEL THREADS ROWS [INPUT=…] */
static void job(char **arguments, size_t n_inputs)
{
    static struct input inputs[TENSORS_MAX];
    static struct output outputs[TENSORS_MAX];
    size_t n_outputs = 0;
    int64_t rows = strtoll(arguments[2], NULL, 10);
    for (size_t i = 0; i < n_inputs; i++) {
        inputs[i] = input_parse(arguments[3 + i]);
        if (rows > 0 && datatypes[inputs[i].datatype].bytes == 0) {
            fail(inputs[i].name, "BYTES go whole only: ROWS must be 0");
        }
    }
    OrtSession *session = session_open(arguments[0], (int)strtol(arguments[1], NULL, 10));
    OrtAllocator *allocator = NULL;
    check(api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
    check(api->SessionGetOutputCount(session, &n_outputs), "outputs");
    if (n_outputs > TENSORS_MAX) {
        fail("outputs", "too many");
    }
    for (size_t i = 0; i < n_outputs; i++) {
        check(api->SessionGetOutputName(session, i, allocator, &outputs[i].name), "output name");
    }
    int64_t total = n_inputs > 0 && inputs[0].rank > 0 ? inputs[0].dims[0] : 1, row = 0;
    do {
        int64_t left = total - row;
        run(session, inputs, n_inputs, row, rows > 0 ? (left < rows ? left : rows) : 0, outputs, n_outputs);
        row += rows > 0 ? rows : total;
    } while (row < total);
    outputs_print(outputs, n_outputs);
    _Exit(0); /* everything is still reachable; the library's own teardown proves nothing here */
}

/* One line: OUT MODEL THREADS ROWS [INPUT=…]. Does not return. */
static void line_run(char *line)
{
    char *words[TENSORS_MAX + 4], *rest = line;
    size_t n = 0;
    for (char *word; n < TENSORS_MAX + 4 && (word = strsep(&rest, "\t")) != NULL;) {
        words[n++] = word;
    }
    if (n < 4 || rest != NULL) {
        fail("stdin", "not OUT MODEL THREADS ROWS [INPUT=DATATYPE:DIMS:FILE...]");
    }
    char report[4096];
    int size = snprintf(report, sizeof report, "%s.txt", words[0]);
    if (size < 0 || size >= (int)sizeof report || freopen(words[0], "wb", stdout) == NULL ||
        freopen(report, "w", stderr) == NULL) {
        fail(words[0], "cannot create");
    }
    setvbuf(stderr, NULL, _IONBF, 0); /* as it was before */
    job(words + 1, n - 4);
}

/* Jobs from stdin. Nothing but the loading of the library comes before the fork: it has no threads yet. */
static int jobs_run(void)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t size; (size = getline(&line, &capacity, stdin)) > 0;) {
        line[size - (line[size - 1] == '\n')] = '\0';
        int status = 0;
        pid_t pid = fork();
        if (pid == 0) {
            line_run(line);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) {
            fail("fork", "failed");
        }
        printf("%d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
        fflush(stdout);
    }
    free(line);
    return 0;
}

int main(int argc, char **argv)
{
    bool many = argc == 3 && strcmp(argv[2], "-") == 0;
    if (!many && (argc < 5 || argc - 5 > TENSORS_MAX)) {
        fprintf(stderr, "usage: %s LIBRARY MODEL THREADS ROWS [INPUT=DATATYPE:DIMS:FILE...]\n       %s LIBRARY -\n",
                argv[0], argv[0]);
        return 2;
    }
    library_open(argv[1]);
    if (many) {
        return jobs_run();
    }
    job(argv + 2, (size_t)(argc - 5));
    return 0;
}
