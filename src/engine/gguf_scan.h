/* A look at a GGUF file before llama.cpp gets it: that every length in its header stays within the file and within what
 * models in the field have, so that a lie costs nothing and is named. Pure; the file may be hostile. */
#ifndef BULKHEAD_ENGINE_GGUF_SCAN_H
#define BULKHEAD_ENGINE_GGUF_SCAN_H

#include "base/error.h"
#include "base/str.h"

/* What the scan takes. A large vocabulary has 300 k tokens and as many merges, a large model 2 k tensors. */
#define GGUF_KEYS_MAX     4096u
#define GGUF_TENSORS_MAX  65536u
#define GGUF_ELEMENTS_MAX (16u * 1024 * 1024) /* of an array */
#define GGUF_STRING_MAX   (4u * 1024 * 1024)  /* a chat template is some KiB */
#define GGUF_TOKEN_MAX    512u                /* a string in an array: a token of the vocabulary, or a merge */

/* -ERROR_REFUSED says what is wrong. */
must_check int gguf_scan(struct str file, struct error *err);

#endif
