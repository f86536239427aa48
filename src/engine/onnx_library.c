#include "engine/onnx_internal.h"

#include <dlfcn.h>
#include <stdio.h>

static struct {
    pthread_mutex_t lock;
    const OrtApi *api;
    OrtEnv *env; /* NULL until the library is ready */
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Its log lines name internal paths and the tenant's tensors; failures come back as a status anyway. */
static void ORT_API_CALL discard_log(void *param, OrtLoggingLevel severity, const char *category, const char *logid,
                                     const char *code_location, const char *message)
{
    (void)param, (void)severity, (void)category, (void)logid, (void)code_location, (void)message;
}

static int library_load(const struct engine_options *options, struct error *err)
{
    char path[32], reason[200];
    if (options->library_fd < 0 && !options->library_path)
        return error_set(err, ERROR_UNSUPPORTED, "this server has no ONNX Runtime library");
    /* Microsoft's builds for Linux (1.30.0 at least) carry a telemetry client that is on by default: it writes a
     * database and an identifier under $HOME, starts threads and uploads. It looks at this variable when the first
     * environment is created; DisableTelemetryEvents comes too late for all but the upload. */
    if (setenv("ORT_DISABLE_TELEMETRY", "1", 1) != 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", options->library_fd); /* fits any int */
    void *handle = dlopen(options->library_path ? options->library_path : path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        onnx_text_clean(str_from(dlerror()), reason, sizeof reason);
        return error_set(err, ERROR_UNSUPPORTED, "the server's ONNX Runtime library cannot be loaded: %s", reason);
    }
    const OrtApiBase *(ORT_API_CALL * get_base)(void);
    *(void **)&get_base = dlsym(handle, "OrtGetApiBase"); /* the cast that POSIX's dlsym page prescribes */
    const OrtApiBase *base = get_base ? get_base() : NULL;
    const OrtApi *api = base ? base->GetApi(ORT_API_VERSION) : NULL;
    if (!api) {
        (void)dlclose(handle); /* nothing of it was used */
        return error_set(err, ERROR_UNSUPPORTED, "the server's ONNX Runtime library is older than API version %d",
                         ORT_API_VERSION);
    }
    OrtEnv *env = NULL;
    int result =
        onnx_check(api, api->CreateEnvWithCustomLogger(discard_log, NULL, ORT_LOGGING_LEVEL_FATAL, "bulkhead", &env),
                   ERROR_UNSUPPORTED, "the server's ONNX Runtime library does not start", err);
    if (result < 0)
        return result; /* still loaded: threads or handlers of it may live */
    result = onnx_check(api, api->DisableTelemetryEvents(env), ERROR_INTERNAL, "telemetry cannot be turned off", err);
    if (result < 0) {
        api->ReleaseEnv(env);
        return result;
    }
    library.api = api;
    library.env = env;
    return 0;
}

int onnx_library_open(const struct engine_options *options, const OrtApi **ret_api, const OrtEnv **ret_env,
                      struct error *err)
{
    int result = 0;
    pthread_mutex_lock(&library.lock);
    if (!library.env)
        result = library_load(options, err);
    if (result == 0) {
        *ret_api = library.api;
        *ret_env = library.env;
    }
    pthread_mutex_unlock(&library.lock);
    return result;
}

static int options_set(const OrtApi *api, OrtSessionOptions *options, uint32_t threads, struct error *err)
{
    static const char what[] = "ONNX Runtime refuses an option";
    static const char *const entries[][2] = {
        {"session.load_model_format", "ONNX"}, /* never guess: its own format would pass our scan unseen */
        /* Waiting threads sleep: an idle replica costs nothing, and a tenant pays for work only. */
        {"session.intra_op.allow_spinning", "0"},
        {"session.inter_op.allow_spinning", "0"},
    };
    int result = onnx_check(api, api->SetIntraOpNumThreads(options, (int)threads), ERROR_INTERNAL, what, err);
    if (result == 0)
        result = onnx_check(api, api->SetInterOpNumThreads(options, 1), ERROR_INTERNAL, what, err);
    if (result == 0)
        result = onnx_check(api, api->SetSessionExecutionMode(options, ORT_SEQUENTIAL), ERROR_INTERNAL, what, err);
    if (result == 0)
        result =
            onnx_check(api, api->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL), ERROR_INTERNAL, what, err);
    for (size_t i = 0; i < sizeof entries / sizeof entries[0] && result == 0; i++)
        result = onnx_check(api, api->AddSessionConfigEntry(options, entries[i][0], entries[i][1]), ERROR_INTERNAL,
                            what, err);
    return result;
}

/* The library finds external data by the name that the model has for it, and reads only where it lies. */
static int folder_set(const OrtApi *api, OrtSessionOptions *options, const struct bundle *folder, struct error *err)
{
    size_t n = 0;
    const char **names = calloc(folder->n_files, sizeof *names);
    char **files = calloc(folder->n_files, sizeof *files);
    size_t *sizes = calloc(folder->n_files, sizeof *sizes);
    int result = names && files && sizes ? 0 : error_set_default(err, ERROR_NO_MEMORY);
    for (uint32_t i = 0; i < folder->n_files && result == 0; i++) {
        struct str name, content;
        bundle_at(folder, i, &name, &content); /* names end with a NUL in the table */
        if (content.size == 0)
            continue;
        names[n] = name.data;
        files[n] =
            (char *)(uintptr_t)content.data; /* read-only memory: the library takes no const, and writes nothing */
        sizes[n++] = content.size;
    }
    if (result == 0 && n > 0)
        result = onnx_check(api, api->AddExternalInitializersFromFilesInMemory(options, names, files, sizes, n),
                            ERROR_REFUSED, "ONNX Runtime refuses the model's folder", err);
    free(sizes);
    free(files);
    free(names);
    return result;
}

int onnx_session_open(const OrtApi *api, const OrtEnv *env, struct str model, const struct bundle *folder,
                      uint32_t threads, OrtSession **ret_session, struct error *err)
{
    OrtSessionOptions *options = NULL;
    int result = onnx_check(api, api->CreateSessionOptions(&options), ERROR_INTERNAL, "ONNX Runtime", err);
    if (result < 0)
        return result;
    result = options_set(api, options, threads, err);
    if (result == 0 && folder)
        result = folder_set(api, options, folder, err);
    if (result == 0)
        result = onnx_check(api, api->CreateSessionFromArray(env, model.data, model.size, options, ret_session),
                            ERROR_REFUSED, "ONNX Runtime refuses the model", err);
    api->ReleaseSessionOptions(options);
    return result;
}
