/* Load generator of the bench: keep-alive HTTP/1.1 connections, one thread, one request in flight per connection.
 *
 *   load PORT CONNECTIONS RATE WARM_MS RUN_MS KEYS REQUEST ANSWER EXACT [PID...]
 *
 * RATE 0 is a closed loop: each connection sends its next request when it has its answer. Else requests are due at that
 * rate (a second, evenly spaced, over all connections together) whatever the server does, and a latency counts from the
 * moment when its request was due: what waits for a free connection waits for the server.
 * KEYS holds one key a line, all of the same length; the mark @KEY@ in REQUEST (a whole request: head and body) is
 * replaced by another key for each request, in a fixed order that visits all of them. The body of every answer must
 * have the size of ANSWER and the same first EXACT bytes (floating point may differ in its last bits from batch to
 * batch, so the row itself compares numbers). Whatever is counted or timed lies between the end of the warm-up and the
 * end of the run; CPU times of the processes PID (all their threads; they must not be reaped meanwhile) and of the
 * whole machine are read at the same two moments. Prints one JSON object. Minimal on purpose, because it shares its
 * cores with what it measures: an answer has a Content-Length or is an error, and a send that does not fit the socket's
 * buffer is one too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES_MAX = 4096, SAMPLES_MAX = 4 << 20, PIDS_MAX = 64, FAILURES_MAX = 10000 };
#define KEY_MARK   "@KEY@"
#define KEY_STRIDE 7919u /* a prime: with it the order visits every key unless their number is a multiple of it */

struct bytes {
    char *data;
    size_t size;
};

struct connection {
    struct connection *next_idle;
    int fd;
    char *request, *key; /* key: its place in request */
    uint64_t sent_ns;
    size_t have; /* bytes of the answer so far, in `answer` */
    char *answer;
};

struct moment {
    uint64_t ns, own_ns, machine_ticks[10], pid_ns[PIDS_MAX];
};

static struct sockaddr_in address;
static struct bytes keys, expected;
static size_t key_bytes, n_keys, key_at, request_bytes;
static clockid_t pid_clocks[PIDS_MAX];
static int n_pids, epoll_fd;
static uint32_t *samples; /* latencies in ns, at most 4 s */
static size_t n_samples;
static uint64_t n_requests, n_status, n_body, n_closed;
static bool counting;
static size_t exact_bytes;
/* At a given rate: when the next request is due, how long after it the one behind, and who can send it. */
static uint64_t due_ns, interval_ns;
static struct connection *idle;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("load: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) < 0)
        die("a process under measurement has ended");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct bytes file_read(const char *path)
{
    struct stat info;
    struct bytes file = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) < 0)
        die("%s: %s", path, strerror(errno));
    file.size = (size_t)info.st_size;
    file.data = calloc(1, file.size + 1);
    if (!file.data || read(fd, file.data, file.size) != (ssize_t)file.size)
        die("%s: cannot read it", path);
    (void)close(fd);
    return file;
}

static long number(const char *text, long max)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < 0 || value > max)
        die("%s: a number from 0 to %ld is expected", text, max);
    return value;
}

/* --- one connection --- */

static void request_send(struct connection *c, uint64_t sent_ns)
{
    memcpy(c->key, keys.data + key_at * (key_bytes + 1), key_bytes);
    key_at = (key_at + KEY_STRIDE) % n_keys;
    c->have = 0;
    c->sent_ns = sent_ns;
    if (send(c->fd, c->request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes && errno != EPIPE &&
        errno != ECONNRESET) /* those two are seen by the next recv */
        die("send: %s", strerror(errno));
}

/* Whatever is due goes out, as long as there is a connection for it. */
static void due_send(uint64_t now_ns)
{
    while (idle && due_ns <= now_ns) {
        struct connection *c = idle;
        idle = c->next_idle;
        request_send(c, due_ns);
        due_ns += interval_ns;
    }
}

/* The connection is free for its next request. */
static void request_next(struct connection *c)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    if (interval_ns == 0) {
        request_send(c, now_ns);
        return;
    }
    c->next_idle = idle;
    idle = c;
    due_send(now_ns);
}

static void connection_open(struct connection *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 || fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("a connection cannot be set up: %s", strerror(errno));
}

static void connection_init(struct connection *c, struct bytes request)
{
    size_t before = (size_t)((char *)memmem(request.data, request.size, KEY_MARK, strlen(KEY_MARK)) - request.data);
    size_t behind = before + strlen(KEY_MARK);
    request_bytes = request.size - strlen(KEY_MARK) + key_bytes;
    c->request = malloc(request_bytes);
    c->answer = malloc(HEAD_BYTES_MAX + expected.size + 1);
    if (!c->request || !c->answer)
        die("out of memory");
    c->key = c->request + before;
    memcpy(c->request, request.data, before);
    memcpy(c->key + key_bytes, request.data + behind, request.size - behind);
    connection_open(c);
}

/* Size of the whole answer at c->answer, 0 while its head is not complete. */
static size_t answer_size(struct connection *c, size_t *ret_head)
{
    const char *end = memmem(c->answer, c->have, "\r\n\r\n", 4);
    if (!end)
        return 0;
    c->answer[c->have] = '\0';
    const char *length = strcasestr(c->answer, "\r\ncontent-length:");
    if (!length || length > end)
        die("an answer without Content-Length: %.200s", c->answer);
    *ret_head = (size_t)(end + 4 - c->answer);
    return *ret_head + strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
}

static void answer_end(struct connection *c, size_t head)
{
    bool good_status = memcmp(c->answer, "HTTP/1.1 200", 12) == 0;
    bool good_body = c->have - head == expected.size && memcmp(c->answer + head, expected.data, exact_bytes) == 0;
    if (!good_status || !good_body) {
        if (n_status + n_body == 0)
            (void)fprintf(stderr, "load: first bad answer: %.600s\n", c->answer);
        n_status += !good_status;
        n_body += good_status && !good_body;
        if (n_status + n_body > FAILURES_MAX)
            die("more than %d bad answers", FAILURES_MAX);
    } else if (counting) {
        uint64_t taken = clock_ns(CLOCK_MONOTONIC) - c->sent_ns;
        if (n_samples < SAMPLES_MAX)
            samples[n_samples++] = taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
        n_requests++;
    }
}

static void connection_read(struct connection *c)
{
    size_t head = 0, room = HEAD_BYTES_MAX + expected.size - c->have;
    ssize_t got = recv(c->fd, c->answer + c->have, room, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (++n_closed > FAILURES_MAX)
            die("the server closed more than %d connections", FAILURES_MAX);
        (void)close(c->fd);
        connection_open(c);
        request_next(c);
        return;
    }
    c->have += (size_t)got;
    size_t size = answer_size(c, &head);
    if (size > HEAD_BYTES_MAX + expected.size || (size > 0 && c->have > size) || (size == 0 && (size_t)got == room))
        die("an answer larger than expected: %.600s", c->answer);
    if (size == 0 || c->have < size)
        return;
    answer_end(c, head);
    request_next(c);
}

/* --- the run --- */

static void moment_take(struct moment *m)
{
    static char text[256];
    int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        die("/proc/stat cannot be read");
    (void)close(fd);
    char *at = text + strlen("cpu");
    for (int i = 0; i < 10; i++)
        m->machine_ticks[i] = strtoull(at, &at, 10);
    for (int i = 0; i < n_pids; i++)
        m->pid_ns[i] = clock_ns(pid_clocks[i]);
    m->own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    m->ns = clock_ns(CLOCK_MONOTONIC);
}

static void run_until(uint64_t end_ns)
{
    struct epoll_event events[64];
    for (uint64_t now = clock_ns(CLOCK_MONOTONIC); now < end_ns; now = clock_ns(CLOCK_MONOTONIC)) {
        uint64_t until_ns = idle && interval_ns > 0 && due_ns < end_ns ? due_ns : end_ns;
        uint64_t wait_ns = until_ns > now ? until_ns - now : 0;
        struct timespec wait = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
        int n = epoll_pwait2(epoll_fd, events, 64, &wait, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2: %s", strerror(errno));
        for (int i = 0; i < n; i++)
            connection_read(events[i].data.ptr);
        if (interval_ns > 0)
            due_send(clock_ns(CLOCK_MONOTONIC));
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_us(double share)
{
    return n_samples > 0 ? samples[(size_t)(share * (double)(n_samples - 1))] / 1e3 : 0;
}

static void report(const struct moment *a, const struct moment *b)
{
    double second = (double)sysconf(_SC_CLK_TCK);
    qsort(samples, n_samples, sizeof *samples, compare);
    (void)printf("{\"requests\":%llu,\"bad_status\":%llu,\"bad_body\":%llu,\"closed\":%llu,\"seconds\":%.6f,"
                 "\"generator_cpu_s\":%.6f,",
                 (unsigned long long)n_requests, (unsigned long long)n_status, (unsigned long long)n_body,
                 (unsigned long long)n_closed, (double)(b->ns - a->ns) / 1e9, (double)(b->own_ns - a->own_ns) / 1e9);
    (void)printf("\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"server_cpu_s\":[",
                 percentile_us(0.5), percentile_us(0.9), percentile_us(0.99), percentile_us(0.999), percentile_us(1));
    for (int i = 0; i < n_pids; i++)
        (void)printf("%s%.6f", i > 0 ? "," : "", (double)(b->pid_ns[i] - a->pid_ns[i]) / 1e9);
    (void)printf("],\"machine_s\":["); /* user nice system idle iowait irq softirq steal */
    for (int i = 0; i < 8; i++)
        (void)printf("%s%.2f", i > 0 ? "," : "", (double)(b->machine_ticks[i] - a->machine_ticks[i]) / second);
    (void)printf("]}\n");
}

/* Fills address, keys, expected and pid_clocks; returns the request with its mark. */
static struct bytes arguments_take(int argc, char **argv)
{
    if (argc < 10 || argc - 10 > PIDS_MAX)
        die("usage: load PORT CONNECTIONS RATE WARM_MS RUN_MS KEYS REQUEST ANSWER EXACT [PID...]");
    address = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)number(argv[1], 65535)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    long rate = number(argv[3], 10000000);
    interval_ns = rate > 0 ? 1000000000u / (uint64_t)rate : 0;
    keys = file_read(argv[6]);
    struct bytes request = file_read(argv[7]);
    expected = file_read(argv[8]);
    exact_bytes = (size_t)number(argv[9], (long)expected.size);
    key_bytes = strcspn(keys.data, "\n");
    n_keys = keys.size / (key_bytes + 1);
    if (key_bytes == 0 || keys.size % (key_bytes + 1))
        die("keys must be lines of one length");
    if (!memmem(request.data, request.size, KEY_MARK, strlen(KEY_MARK)))
        die("the request must hold " KEY_MARK);
    for (int i = 10; i < argc; i++)
        if (clock_getcpuclockid((pid_t)number(argv[i], INT32_MAX), &pid_clocks[n_pids++]))
            die("there is no process %s", argv[i]);
    return request;
}

int main(int argc, char **argv)
{
    struct bytes request = arguments_take(argc, argv);
    size_t n_connections = (size_t)number(argv[2], 10000);
    uint64_t warm_ns = (uint64_t)number(argv[4], 1000000) * 1000000u;
    uint64_t run_ns = (uint64_t)number(argv[5], 1000000) * 1000000u;
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    struct connection *connections = calloc(n_connections, sizeof *connections);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!samples || !connections || epoll_fd < 0)
        die("out of memory");
    memset(samples, 1, SAMPLES_MAX * sizeof *samples); /* no page faults while it counts */

    struct moment begin, end;
    for (size_t i = 0; i < n_connections; i++)
        connection_init(&connections[i], request);
    due_ns = clock_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < n_connections; i++)
        request_next(&connections[i]);
    run_until(clock_ns(CLOCK_MONOTONIC) + warm_ns);
    counting = true;
    moment_take(&begin);
    run_until(begin.ns + run_ns);
    moment_take(&end);
    report(&begin, &end);
    return 0;
}
