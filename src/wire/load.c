/* The closed loop: epoll, nonblocking connections, one llhttp parser each. */
#include "wire/load.h"

#include "base/clock.h"
#include "base/list.h"

#include <arpa/inet.h>
#include <errno.h>
#include <llhttp.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define REQUEST_BYTES_MAX 16384u /* an empty socket buffer takes it at once */
#define PIECE_BYTES       16384
#define WAIT_NS_MAX       (100 * NS_PER_MS) /* a signal that comes between two looks is seen this late */

struct connection {
    struct wire_load_group *group;
    int fd;
    uint64_t sent_ns;
    bool complete, last; /* the answer is whole; the server closes behind it */
    llhttp_t parser;
};

struct run {
    struct wire_load *load;
    struct error *err;
    int epoll;
    bool counting;
    uint64_t heard_ns;
    struct connection connections[WIRE_LOAD_CONNECTIONS_MAX];
    uint32_t n;
};

static int on_message_complete(llhttp_t *parser)
{
    struct connection *c = container_of(parser, struct connection, parser);
    c->complete = llhttp_get_status_code(parser) >= 200; /* else an interim answer */
    c->last = c->complete && !llhttp_should_keep_alive(parser);
    return 0;
}

static const llhttp_settings_t settings = {.on_message_complete = on_message_complete};

static int request_send(struct run *run, struct connection *c)
{
    c->complete = false;
    ssize_t sent = send(c->fd, c->group->request.data, c->group->request.size, MSG_NOSIGNAL);
    if (sent == (ssize_t)c->group->request.size || (sent < 0 && (errno == EPIPE || errno == ECONNRESET)))
        return 0; /* an end is seen by the next read */
    return error_set(run->err, ERROR_IO, "a request could not be sent at once: %s",
                     sent < 0 ? strerrordesc_np(errno) : "the socket's buffer is too small");
}

static int connection_open(struct run *run, struct connection *c)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(run->load->port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    llhttp_init(&c->parser, HTTP_RESPONSE, &settings);
    c->sent_ns = clock_monotonic_ns();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
        return error_set(run->err, ERROR_IO, "cannot make a socket: %s", strerrordesc_np(errno));
    int r;
    do
        r = connect(c->fd, (struct sockaddr *)&address, sizeof address);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return error_set(run->err, ERROR_GONE, "cannot connect to the server: %s", strerrordesc_np(errno));
    if (epoll_ctl(run->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        return error_set(run->err, ERROR_IO, "cannot watch a socket: %s", strerrordesc_np(errno));
    return request_send(run, c);
}

static void note_failure(const struct run *run, struct connection *c, int status)
{
    struct wire_load_group *group = c->group;
    if (group->n_failed == 0 && group->first_status == 0)
        group->first_status = status;
    group->n_failed += run->counting;
}

static void note_answer(struct run *run, struct connection *c, uint64_t now_ns)
{
    struct wire_load_group *group = c->group;
    run->heard_ns = now_ns;
    int status = llhttp_get_status_code(&c->parser);
    if (status != 200) {
        note_failure(run, c, status);
    } else if (run->counting) {
        group->n_answers++;
        if (group->n_samples < group->samples_max)
            group->samples_ns[group->n_samples++] = now_ns - c->sent_ns;
    }
}

static int connection_renew(struct run *run, struct connection *c)
{
    fd_close(&c->fd);
    return connection_open(run, c);
}

static int connection_read(struct run *run, struct connection *c)
{
    char piece[PIECE_BYTES];
    ssize_t got = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        note_failure(run, c, 0);
        return connection_renew(run, c);
    }
    enum llhttp_errno result = llhttp_execute(&c->parser, piece, (size_t)got);
    if (result != HPE_OK)
        return error_set(run->err, ERROR_PEER, "an answer is not well-formed HTTP/1.1: %s", llhttp_errno_name(result));
    if (!c->complete)
        return 0;
    uint64_t now_ns = clock_monotonic_ns();
    note_answer(run, c, now_ns);
    if (c->last)
        return connection_renew(run, c);
    c->sent_ns = now_ns;
    return request_send(run, c);
}

static bool enough(const struct run *run)
{
    const struct wire_load *load = run->load;
    return run->counting && load->answers_max > 0 && load->groups[0].n_answers >= load->answers_max;
}

static int run_until(struct run *run, uint64_t end_ns)
{
    struct epoll_event events[64];
    for (uint64_t now_ns = clock_monotonic_ns(); now_ns < end_ns && !enough(run); now_ns = clock_monotonic_ns()) {
        if (run->load->stop && *run->load->stop)
            return error_set(run->err, ERROR_CANCELLED, "stopped by a signal");
        if (now_ns > run->heard_ns + run->load->silence_ns_max)
            return error_set(run->err, ERROR_REQUEST_TIMEOUT, "no answer for %llu s",
                             (unsigned long long)(run->load->silence_ns_max / NS_PER_S));
        uint64_t wait_ns = end_ns - now_ns < WAIT_NS_MAX ? end_ns - now_ns : WAIT_NS_MAX;
        struct timespec wait = {.tv_nsec = (long)wait_ns};
        int n = epoll_pwait2(run->epoll, events, 64, &wait, NULL);
        if (n < 0 && errno != EINTR)
            return error_set(run->err, ERROR_IO, "cannot wait for answers: %s", strerrordesc_np(errno));
        for (int i = 0; i < n; i++) {
            int r = connection_read(run, events[i].data.ptr);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int run_all(struct run *run)
{
    struct wire_load *load = run->load;
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run->epoll < 0)
        return error_set(run->err, ERROR_IO, "cannot wait for answers: %s", strerrordesc_np(errno));
    uint64_t begin_ns = run->heard_ns = clock_monotonic_ns();
    run->counting = load->warm_ns == 0;
    for (uint32_t g = 0; g < load->n_groups; g++)
        for (uint32_t i = 0; i < load->groups[g].n_connections; i++) {
            struct connection *c = &run->connections[run->n++];
            *c = (struct connection){.group = &load->groups[g], .fd = -1};
            int r = connection_open(run, c);
            if (r < 0)
                return r;
        }
    int r = run_until(run, begin_ns + load->warm_ns);
    run->counting = true;
    begin_ns = clock_monotonic_ns();
    if (r >= 0)
        r = run_until(run, begin_ns + load->run_ns);
    load->ns = clock_monotonic_ns() - begin_ns;
    return r;
}

int wire_load_run(struct wire_load *load, struct error *err)
{
    uint32_t n = 0;
    for (uint32_t g = 0; g < load->n_groups; g++) {
        struct wire_load_group *group = &load->groups[g];
        if (group->n_connections > WIRE_LOAD_CONNECTIONS_MAX || group->request.size > REQUEST_BYTES_MAX)
            return error_set(err, ERROR_LIMIT, "more connections or a larger request than a run takes");
        n += group->n_connections;
        group->n_samples = 0;
        group->n_answers = group->n_failed = 0;
        group->first_status = 0;
    }
    if (load->n_groups > WIRE_LOAD_GROUPS_MAX || n > WIRE_LOAD_CONNECTIONS_MAX)
        return error_set(err, ERROR_LIMIT, "more connections than a run takes");
    _free_ struct run *run = calloc(1, sizeof *run);
    if (!run)
        return error_set_default(err, -ERROR_NO_MEMORY);
    run->load = load;
    run->err = err;
    run->epoll = -1;
    int r = run_all(run);
    for (uint32_t i = 0; i < run->n; i++)
        fd_close(&run->connections[i].fd);
    fd_close(&run->epoll);
    return r;
}
