/* A look at a LoRA adapter before llama.cpp gets it: a GGUF file whose header is sound (gguf_scan.h), that says it is a
 * LoRA for this model's architecture, and whose tensors come in pairs that fit the model's own. llama.cpp asserts some
 * of this where an adapter is used, in the worker that several tenants share; so nothing is left to it. Pure; both
 * files may be hostile. */
#ifndef BULKHEAD_ENGINE_LORA_SCAN_H
#define BULKHEAD_ENGINE_LORA_SCAN_H

#include "base/error.h"
#include "base/str.h"

#define LORA_TENSORS_MAX 16384u /* a pair for each of a large model's 2 k tensors, and more */
#define LORA_RANK_MAX    4096u

/* `base`: the model's file, which gguf_scan has taken. -ERROR_REFUSED says what is wrong; -ERROR_NO_MEMORY. */
must_check int lora_scan(struct str adapter, struct str base, struct error *err);

#endif
