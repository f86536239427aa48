/* Every maximum and time-out of the server in one place, with the arithmetic behind it. A value that an operator may
 * change is a field of the `Server` resource; what stands here is then its default. docs/limits.md lists them for
 * users; test/live/test_limits.py tests each at limit-1, limit and limit+1. */
#ifndef BULKHEAD_BASE_LIMITS_H
#define BULKHEAD_BASE_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

/* HTTP: head. 16 KiB hold 100 headers of 160 bytes; nginx takes 4 × 8 KiB. */
#define LIMIT_HTTP_HEAD_BYTES   (16 * KIB)
#define LIMIT_HTTP_HEADERS      100u
#define LIMIT_HTTP_TARGET_BYTES (4 * KIB)
/* HTTP: body of an inference request. A batch of 32 images of 3×224×224 FP32 is 19.3 MB. */
#define LIMIT_BODY_BYTES (32 * MIB)
/* HTTP: connections. Each idle one costs about 1.5 KiB of ours and 2 descriptors at most. */
#define LIMIT_CONNECTIONS 4096u
/* HTTP: bytes of request bodies, and of answers that are not read, held at once by all connections. As much again may
 * requests take as they are decoded, with answers that are gathered. */
#define LIMIT_BODIES_BYTES (512 * MIB)
/* HTTP: time-outs, milliseconds. */
#define LIMIT_HEAD_TIMEOUT_MS  10000u
#define LIMIT_IDLE_TIMEOUT_MS  75000u
#define LIMIT_WRITE_TIMEOUT_MS 30000u
/* HTTP: what may be in a JSON body. The gateway's one thread parses a value in 20 to 80 ns, so 31 MB of small ones
 * would keep everybody waiting for the better part of a second. For a language model, strings, arrays and objects:
 * 26,000 messages have 130,000; numbers beyond that are tokens. For any other, members of objects, as tensors are
 * arrays. */
#define LIMIT_JSON_NODES (128 * 1024u)
/* Of tensors as JSON: 32 images of 3×224×224 are 4.8 million numbers; what is larger is sent as binary data. */
#define LIMIT_JSON_ENTRIES (5 * 1024 * 1024u)
/* Bodies from this size on may take longer than all else in a turn of the gateway's loop: once these have taken so long,
 * the others' turn is the next one. A small body takes less than a millisecond. */
#define LIMIT_TURN_BYTES (256 * KIB)
#define LIMIT_TURN_MS    10u
/* A body slower than this over any window of LIMIT_BODY_WINDOW_MS is cut off with 408. */
#define LIMIT_BODY_RATE_BYTES_PER_S 1024u
#define LIMIT_BODY_WINDOW_MS        5000u

/* Admin socket. An apply body holds resources only; artifacts are streamed separately. */
#define LIMIT_ADMIN_BODY_BYTES  (8 * MIB)
#define LIMIT_ADMIN_CONNECTIONS 64u
/* Language models of some hundred billion parameters. What a host can hold is looked at when it comes to that: the disk
 * when it is stored, free memory when it is opened, a tenant's spec.quota.artifactBytes when it is applied. */
#define LIMIT_ARTIFACT_BYTES  (1024 * GIB)
#define LIMIT_APPLY_RESOURCES 1024u

/* A folder as a model's source: its table is 272 bytes a file. Models exported in pieces have some hundreds. */
#define LIMIT_FOLDER_FILES      1024u
#define LIMIT_FOLDER_NAME_BYTES 255u /* with the folders in it */

/* Names and text. */
#define LIMIT_NAME_BYTES       63u
#define LIMIT_REQUEST_ID_BYTES 128u

/* Tensors. OIP gives no bound; ONNX models in the field use rank ≤ 6, ONNX Runtime's own kernels ≤ 8. */
#define LIMIT_TENSOR_RANK       8u
#define LIMIT_TENSORS           64u /* inputs, and outputs, of one model or request */
#define LIMIT_TENSOR_NAME_BYTES 255u

/* Catalog: 1 M keys × 56 B and 1 M tenants × 112 B, with two quotas of 88 B each, their index, and models and adapters
 * stay below 480 MiB. */
#define LIMIT_CATALOG_BYTES   (512 * MIB)
#define LIMIT_TENANTS         1000000u
#define LIMIT_KEYS            1000000u
#define LIMIT_MODELS          100000u /* those that are lent count once for each borrower, too */
#define LIMIT_ADAPTERS        100000u
#define LIMIT_GRANTS          10000u /* each is read at every change of one */
#define LIMIT_GRANT_TENANTS   64u    /* borrowers in one Grant; a model may have several */
#define LIMIT_VERSIONS_SERVED 8u     /* newest versions of a model that stay addressable */

/* Scheduling. */
#define LIMIT_BATCH_ITEMS         256u
#define LIMIT_QUEUE_DEPTH_DEFAULT 256u
#define LIMIT_QUEUE_WAIT_MS       30000u /* a request without a deadline of its own waits at most this long */
#define LIMIT_LEASE_FACTOR        8u     /* DESIGN §6: a lease overdue by 8 × estimate … */
#define LIMIT_LEASE_MIN_MS        1000u  /* … and at least 1 s kills the worker */
#define LIMIT_LEASE_FIRST_MS      30000u /* the limit while there is no estimate yet, and of language models */
#define LIMIT_PREEMPT_MS          500u   /* a worker that takes longer to give a lease up is not asked again */
#define LIMIT_DEVICES             16u    /* pools of slots; each lease looks at all of them */
#define LIMIT_CPUS                1024u  /* processors that are told apart; a multiple of 64 */
#define LIMIT_BATCH_PREFERRED     8u     /* preferred sizes of a model's batches */

/* Copies of artifacts into memory that are under way at once, and how much of one is copied before somebody else's
 * turn: 2 to 15 ms where SHA-256 takes 2 GB/s to 400 MB/s and the file is in the page cache. A huge page is as large.
 */
#define LIMIT_COPIES           16u
#define LIMIT_COPY_SLICE_BYTES (2 * MIB)
/* Of a removed file, or of memory given back, so much is freed before somebody else's turn: 1 to 4 ms on ext4. */
#define LIMIT_REMOVE_SLICE_BYTES (8 * MIB)

/* Describing a model at apply: processes at once, how long one may take, and what it may answer. A signature of 128
 * tensors with the longest name and rank is 128 × (255 + 8 × 8 + 16) B = 43 KiB. */
#define LIMIT_INGESTS         4u
#define LIMIT_INGEST_MS       30000u
#define LIMIT_SIGNATURE_BYTES (48 * KIB)

/* An OCI image as a container's root. The tar file of one layer, unpacked: contents, and a header and padding for each
 * member. Unpacking it takes as much memory as one layer, its packed form, and the result. */
#define LIMIT_IMAGE_BYTES        (512 * MIB) /* contents of files, replaced ones included */
#define LIMIT_IMAGE_LAYER_BYTES  (640 * MIB)
#define LIMIT_IMAGE_FILES        32768u
#define LIMIT_IMAGE_MEMBERS      131072u /* of one tar file */
#define LIMIT_IMAGE_LAYERS       128u
#define LIMIT_IMAGE_PATH_BYTES   1023u
#define LIMIT_IMAGE_JSON_BYTES   (1 * MIB)
#define LIMIT_IMAGE_RESULT_BYTES (640 * MIB) /* with a table of 32,768 of the longest names */
#define LIMIT_IMAGE_MEMORY_BYTES (2 * GIB)

/* Replicas. */
#define LIMIT_REPLICAS           1024u
#define LIMIT_REPLICAS_PER_MODEL 64u
/* A microVM's memory beyond the model's limit: kernel and page tables, and the model and the memory file system that
 * live in it; and beyond the machine's, the monitor's own (its translated code included). Idle, this machine used 38
 * MiB of the first and 60 MiB of the second. */
#define LIMIT_MICROVM_KERNEL_BYTES  (64 * MIB)
#define LIMIT_MICROVM_MONITOR_BYTES (192 * MIB)
#define LIMIT_MICROVM_RUNTIME_BYTES (48 * MIB) /* an OCI runtime in there, and what the first program then needs */
#define LIMIT_REPLICA_START_MS      60000u     /* from spawn to loaded */
#define LIMIT_RESTART_DELAY_MIN_MS  100u       /* first back-off, doubled each time, ± 50 % jitter */
#define LIMIT_RESTART_DELAY_MAX_MS  30000u

/* Blank workers of level pool; their limits until a model's take over. */
#define LIMIT_POOL_SIZE          32u /* per engine */
#define LIMIT_BLANK_START_MS     30000u
#define LIMIT_BLANK_MEMORY_BYTES (256 * MIB)
#define LIMIT_BLANK_CPU_MILLI    1000u

/* Level shared: models that one worker hosts, so many are lost together when one of them crashes; how long one that is
 * no longer needed may take to leave; and workers that run at once for one lost request each. */
#define LIMIT_SHARED_MEMBERS  16u
#define LIMIT_SHARED_LEAVE_MS 5000u
#define LIMIT_LONE_WORKERS    8u
/* Of these for language models' generations, which may run long: of one tenant half as many. And how long after its
 * loss the second try of one may begin. */
#define LIMIT_LONE_GENERATIONS 4u
#define LIMIT_LONE_WAIT_MS     30000u

/* What a replica can keep in its /tmp; counted as its memory too. Engines write nothing; an extension may unpack
 * itself. */
#define LIMIT_REPLICA_TMP_BYTES (16 * MIB)
#define LIMIT_REPLICA_TMP_FILES 256u

/* Channel: a lease's gathered inputs, and its outputs, each fit one slot (larger outputs come in parts). */
/* Per direction, a power of two. Host to guest at most: 256 CANCELs of a lease that was just ending, then LEASE, 256
 * ITEMs and 256 CANCELs of the next one, and a CREDIT: 770. Guest to host a lease has at most a few frames per output.
 */
#define LIMIT_CHANNEL_FRAMES 1024u

/* Generations. A prompt is bounded by the body that brought it; tokens by the longest contexts in the field (1 M). What
 * the OpenAI API says: 4 stop strings, 20 top_logprobs, logit_bias for up to 300 tokens. */
#define LIMIT_PROMPT_TOKENS (1024u * 1024)
#define LIMIT_STOPS         4u
#define LIMIT_STOP_BYTES    256u
#define LIMIT_LOGIT_BIASES  300u
#define LIMIT_TOP_LOGPROBS  20u
#define LIMIT_GRAMMAR_BYTES (64 * KIB)
/* Numbers and lengths (128), stop strings with their lengths, biases: 128 + 4 × 258 + 300 × 8 = 3560. */
#define LIMIT_GENERATION_HEAD_BYTES 3584u
/* Events. A token with its 20 rivals, each with 4 + 4 + 2 bytes and its text, takes 21 × 266 + 1 = 5587 bytes; an event
 * has room for one of them, 4 KiB of text, a tool call's names and its own 64 bytes. 1024 token ids without
 * probabilities take 11 bytes each, 2048 values of a vector 4: 11 KiB and 8 KiB. */
#define LIMIT_EVENT_BYTES      (16 * KIB)
#define LIMIT_EVENT_TEXT_BYTES (4 * KIB)
#define LIMIT_EVENT_TOKENS     1024u
#define LIMIT_EVENT_VALUES     2048u
#define LIMIT_TOKEN_BYTES      256u
/* Of one request: answers (n × prompts), inputs of an embeddings request and tools. The OpenAI API takes 128, 2048,
 * 128; answers are sequences, of which a replica works on 64 at once. */
#define LIMIT_CHOICES    32u
#define LIMIT_EMBEDDINGS 2048u
#define LIMIT_TOOLS      128u
/* A stream whose client does not read: from half of these bytes on nothing is generated for it. What was on its way, at
 * most 4 events of 4 KiB text for each of a few steps, fits the other half. */
#define LIMIT_STREAM_BYTES (256 * KIB)
/* Prompts that a stream begins with (`echo`), of all its answers; their buffer comes on top of the above. */
#define LIMIT_ECHO_BYTES MIB
/* A comment goes into a stream that was silent for so long (up to a second more). */
#define LIMIT_STREAM_IDLE_MS 10000u
/* What is gathered for one answer that does not stream: text, tool calls and probabilities of all its choices, or
 * vectors. A context of a million tokens is about 4 MiB of text; 2048 vectors of 4096 elements take 32 MiB. */
#define LIMIT_GATHERED_BYTES (32 * MIB)
/* How long a language model's lease may step (DESIGN §6). */
#define LIMIT_QUANTUM_US 20000u
/* A language model that had nothing to step for so long gives back what of its memory is not used. Not sooner: pages
 * that come again are cleared, 48 MiB for a chat's next question, and 16 streams that begin together pay a fifth of a
 * turn's processor time. */
#define LIMIT_REST_MS 30000u
/* Sequences that one replica works on at once. */
#define LIMIT_SEQUENCES 64u
/* Adapters on their way into one replica at once; of more, the worker takes none in. Each is a descriptor of its 64. */
#define LIMIT_ADAPTERS_WAITING 16u
#define LIMIT_ADAPTERS_LOADED  64u /* in one worker at once */

/* Different system calls that a worker was refused and that are told by number; all others together: 8 bytes each, of
 * each replica, in the worker, the gateway and control. */
#define LIMIT_BLOCKED_CALLS 16u

/* Quotas: what tenants and keys used goes to the store at most so many at a time, once a second: 448 KiB, 5 to 35 ms of
 * control's time. */
#define LIMIT_QUOTA_ROWS 4096u
/* A request whose turn by its tenant's bytes per second is further away is refused. */
#define LIMIT_FLOW_WAIT_MS 30000u

/* Metrics: pairs of tenant and model with figures of their own; about 760 bytes each in a page that exists once. */
#define LIMIT_METRICS_ROWS 100u

/* Server spec.profile edge: of the server's own processes together 64 MiB. What control and the gateway may have of
 * data is set as their RLIMIT_DATA; libraries' pages that they share and the supervisor, which keeps nothing that grows
 * with requests, took 8 MiB in all. An allocation beyond is refused with 503, as any that fails. */
#define LIMIT_EDGE_CONTROL_BYTES (24 * MIB)
#define LIMIT_EDGE_GATEWAY_BYTES (28 * MIB)
#define LIMIT_EDGE_CONNECTIONS   64u
#define LIMIT_EDGE_BODY_BYTES    MIB
#define LIMIT_EDGE_BODIES_BYTES  (8 * MIB)
#define LIMIT_EDGE_QUEUE_BYTES   (4 * MIB)

/* Roles. */
#define LIMIT_CATALOG_ACK_MS    2000u /* DESIGN §3: then the answer says `pending` */
#define LIMIT_DRAIN_MS          30000u
#define LIMIT_BUS_MESSAGE_BYTES (64 * KIB)
#define LIMIT_BUS_FDS           8u

#endif
