/*
 * Replays a fuzz target's corpus as a plain test: `replay-fuzz_x CORPUS_DIR`.
 *
 * Linked with a target's LLVMFuzzerTestOneInput in place of libFuzzer. Prints one TAP line per file and for the empty
 * input; a crash ends the program, which fails it. Each input lies in a heap block of exactly its size, so that ASan
 * sees a read one byte beyond it.
 */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_BYTES_MAX = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int replay_file(const char *dir, const char *name)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) {
        return -1;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return -1;
    }
    int result = -1;
    uint8_t *data = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file);
        rewind(file);
        if (size >= 0 && size <= INPUT_BYTES_MAX) {
            data = malloc(size > 0 ? (size_t)size : 1);
        }
        if (data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size) {
            (void)LLVMFuzzerTestOneInput(data, (size_t)size); // its result only steers libFuzzer's corpus
            result = 0;
        }
    }
    free(data);
    fclose(file);
    return result;
}

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_DIR\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != NULL) {
        (void)LLVMFuzzerInitialize(&argc, &argv);
    }
    setvbuf(stdout, NULL, _IOLBF, 0); // the last line names the input before a crash
    struct dirent **entries = NULL;
    int count = scandir(argv[1], &entries, is_input, alphasort);
    if (count <= 0) {
        printf("Bail out! no corpus in %s\n", argv[1]);
        return 1;
    }
    printf("1..%d\n", count + 1);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("ok 1 - empty\n");
    int failed = 0;
    for (int i = 0; i < count; i++) {
        printf("# %s\n", entries[i]->d_name);
        int result = replay_file(argv[1], entries[i]->d_name);
        printf("%s %d - %s\n", result == 0 ? "ok" : "not ok", i + 2, entries[i]->d_name);
        failed += result != 0;
        free(entries[i]);
    }
    free(entries);
    return failed != 0;
}
