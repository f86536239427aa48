/* Writes the tiny llama of gguf_builder.h to a file, for live tests: gguf_tiny FILE SEED */
#include "gguf_builder.h"

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    struct buf b;
    buf_init(&b, 4 * MIB);
    tiny_build(&b, strtoull(argv[2], NULL, 10));
    FILE *file = b.failed ? NULL : fopen(argv[1], "wb");
    int ok = file && fwrite(b.data, 1, b.size, file) == b.size;
    ok = file && fclose(file) == 0 && ok;
    buf_done(&b);
    return ok ? 0 : 1;
}
