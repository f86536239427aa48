/*
 * Runs a model with ONNX Runtime's C API directly: the independent oracle of the live tests. Shares no code with
 * src/engine on purpose.
 *
 *   ort_direct LIBRARY MODEL THREADS ROWS INPUT=DATATYPE:DIMS:FILE...
 *   ort_direct build/engines/libonnxruntime.so.1 digits.onnx 1 1 image=FP32:360,1,8,8:samples.bin >outputs.bin
 *
 * FILE holds the tensor, row-major and little-endian, DIMS its shape. The model runs on ROWS entries of axis 0 at a
 * time (the last run on what is left); 0: on everything at once. To stdout go all outputs in the model's order, each
 * complete: the runs' results one behind the other. To stderr goes one line per output: NAME DATATYPE BYTES DIMS, where
 * DIMS are those of the first run. Fixed-size datatypes only. Exit 0; 1 with a line on stderr; 2 usage.
 */

#include <onnxruntime_c_api.h>

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 64, RANK_MAX = 8 };

static const struct {
    const char *name;
    ONNXTensorElementDataType type;
    size_t bytes;
} datatypes[] = {
    {"BOOL", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1},     {"UINT8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1},
    {"UINT16", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, 2}, {"UINT32", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, 4},
    {"UINT64", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, 8}, {"INT8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1},
    {"INT16", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, 2},   {"INT32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},
    {"INT64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},   {"FP16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2},
    {"BF16", ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, 2}, {"FP32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4},
    {"FP64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8},
};
enum { DATATYPES = sizeof datatypes / sizeof datatypes[0] };

struct input {
    char name[256];
    int datatype; /* index into datatypes */
    size_t rank;
    int64_t dims[RANK_MAX];
    char *data; /* the whole file */
    size_t row_bytes;
};

struct output {
    char *name;
    int datatype;
    size_t rank;
    int64_t dims[RANK_MAX]; /* of the first run */
    char *data;
    size_t size;
};

static const OrtApi *api;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "ort_direct: %s: %s\n", what, why);
    exit(1);
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
        if (dim < 1 || dim > INT32_MAX || (*at != ',' && *at != '\0') || input.rank == RANK_MAX) {
            fail(name, "bad dims");
        }
        input.dims[input.rank++] = dim;
        bytes *= (uint64_t)dim;
    }
    size_t size;
    input.data = read_file(file, &size);
    if (size != bytes) {
        fail(name, "the file's size is not that of the shape");
    }
    input.row_bytes = input.rank > 0 ? size / (size_t)input.dims[0] : size;
    return input;
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
    check(api->GetTensorMutableData(value, &data), "output");
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (output->size == 0) {
        output->datatype = datatype_find(NULL, type);
        output->rank = rank;
        memcpy(output->dims, dims, sizeof dims);
    }
    size_t bytes = count * datatypes[output->datatype].bytes;
    char *grown = realloc(output->data, output->size + bytes + 1);
    if (grown == NULL) {
        fail("output", "out of memory");
    }
    memcpy(grown + output->size, data, bytes);
    output->data = grown;
    output->size += bytes;
    api->ReleaseValue(value);
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
        memcpy(dims, input->dims, sizeof dims);
        size_t bytes = input->row_bytes;
        if (input->rank > 0) {
            dims[0] = rows > 0 ? rows : dims[0];
            bytes *= (size_t)dims[0];
        }
        names[i] = input->name;
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

static OrtSession *session_open(const char *library, const char *model, int threads)
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
    OrtEnv *env = NULL;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    size_t size;
    char *bytes = read_file(model, &size);
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "direct", &env), "environment");
    check(api->CreateSessionOptions(&options), "options");
    check(api->SetIntraOpNumThreads(options, threads), "threads");
    check(api->CreateSessionFromArray(env, bytes, size, options, &session), model);
    free(bytes);
    return session;
}

int main(int argc, char **argv)
{
    if (argc < 6 || argc - 5 > TENSORS_MAX) {
        fprintf(stderr, "usage: %s LIBRARY MODEL THREADS ROWS INPUT=DATATYPE:DIMS:FILE...\n", argv[0]);
        return 2;
    }
    OrtSession *session = session_open(argv[1], argv[2], (int)strtol(argv[3], NULL, 10));
    int64_t rows = strtoll(argv[4], NULL, 10);
    static struct input inputs[TENSORS_MAX];
    static struct output outputs[TENSORS_MAX];
    size_t n_inputs = (size_t)(argc - 5), n_outputs = 0;
    for (size_t i = 0; i < n_inputs; i++) {
        inputs[i] = input_parse(argv[5 + i]);
    }
    OrtAllocator *allocator = NULL;
    check(api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
    check(api->SessionGetOutputCount(session, &n_outputs), "outputs");
    if (n_outputs > TENSORS_MAX) {
        fail("outputs", "too many");
    }
    for (size_t i = 0; i < n_outputs; i++) {
        check(api->SessionGetOutputName(session, i, allocator, &outputs[i].name), "output name");
    }
    int64_t total = inputs[0].rank > 0 ? inputs[0].dims[0] : 1;
    for (int64_t row = 0; row<total; row += rows> 0 ? rows : total) {
        int64_t left = total - row;
        run(session, inputs, n_inputs, row, rows > 0 ? (left < rows ? left : rows) : 0, outputs, n_outputs);
    }
    for (size_t i = 0; i < n_outputs; i++) {
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
    _Exit(0); /* everything is still reachable; the library's own teardown proves nothing here */
}
