/* Which server to ask, and the connection to it.
 *
 * The servers of a mount take turns. One that failed rests: for two seconds it is asked only if all others fail too, so
 * nobody is ever refused because of a rest. Turns and rests are counted in each child process by itself; shared memory
 * would save each child one refused connection, which costs some microseconds, and no request.
 *
 * Where several servers are there so that one of them always is, and yet none is, the last of them has most likely died
 * while another was still starting. For the first two seconds that is waited out; then it is an outage, and told at once.
 */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "mod_scgi.h"

void scgi_round_begin(scgi_round *round, scgi_upstream *upstream)
{
    round->upstream = upstream;
    round->tried = 0;
    round->asked = 0;
    round->rounds = 0;
    round->first = 0;
    round->now = 0;
    if (upstream->count > 1) {
        round->first = __atomic_fetch_add(&upstream->next, 1, __ATOMIC_RELAXED);
        round->now = apr_time_now();
    }
}

static int rests(const scgi_address *address, apr_time_t now)
{
    return __atomic_load_n(&address->rests_until, __ATOMIC_RELAXED) > now;
}

/* Twice round: first those that do not rest, then the others; each once. */
scgi_address *scgi_round_next(scgi_round *round)
{
    int count = round->upstream->count;

    if (count == 1)
        return round->tried++ ? NULL : round->upstream->addresses;
    while (round->tried < 2 * count) {
        int turn = round->tried++;
        unsigned int n = (round->first + (unsigned int)turn) % (unsigned int)count;
        scgi_address *address = &round->upstream->addresses[n];
        if (!(round->asked >> n & 1) && (turn >= count || !rests(address, round->now))) {
            round->asked |= (apr_uint64_t)1 << n;
            return address;
        }
    }
    return NULL;
}

int scgi_round_again(scgi_round *round)
{
    int n;

    if (round->upstream->count == 1 || round->rounds++ == SCGI_ROUNDS)
        return 0;
    round->tried = 0;
    round->asked = 0;
    round->now = apr_time_now();
    for (n = 0; n < round->upstream->count; n++) {
        apr_time_t since = __atomic_load_n(&round->upstream->addresses[n].gone_since, __ATOMIC_RELAXED);
        if (since && round->now - since < SCGI_REST)
            return 1;
    }
    return 0;
}

void scgi_address_failed(scgi_address *address, int gone)
{
    apr_time_t now = apr_time_now();

    __atomic_store_n(&address->rests_until, now + SCGI_REST, __ATOMIC_RELAXED);
    if (gone && !__atomic_load_n(&address->gone_since, __ATOMIC_RELAXED))
        __atomic_store_n(&address->gone_since, now, __ATOMIC_RELAXED);
}

void scgi_address_answered(scgi_address *address)
{
    if (__atomic_load_n(&address->rests_until, __ATOMIC_RELAXED)) {
        __atomic_store_n(&address->rests_until, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&address->gone_since, 0, __ATOMIC_RELAXED);
    }
}

int scgi_send(int fd, struct iovec *pieces, int count, apr_size_t *sent)
{
    struct msghdr message;
    ssize_t size;

    memset(&message, 0, sizeof(message));
    message.msg_iov = pieces;
    message.msg_iovlen = (size_t)count;
    do
        size = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    *sent = size > 0 ? (apr_size_t)size : 0;
    return size < 0 ? errno : 0;
}

/* A unix socket whose queue is full says EAGAIN, and poll() does not know when there is room. A connect that blocks does
 * know, and Linux ends it after SO_SNDTIMEO: so the thread waits in the kernel, woken by room or by the time. */
static int connect_when_there_is_room(int fd, const scgi_endpoint *endpoint, apr_interval_time_t timeout)
{
    struct timeval limit;
    int flags = fcntl(fd, F_GETFL), result;

    limit.tv_sec = (time_t)(timeout / APR_USEC_PER_SEC);
    limit.tv_usec = (suseconds_t)(timeout % APR_USEC_PER_SEC);
    if (flags < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0
        || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return errno;
    result = connect(fd, &endpoint->to.any, endpoint->length) < 0 ? errno : 0;
    if (fcntl(fd, F_SETFL, flags) < 0 && !result)
        result = errno;
    return result == EAGAIN || result == EINPROGRESS ? ETIMEDOUT : result;
}

static int wait_until_connected(int fd, apr_interval_time_t timeout)
{
    apr_time_t end = apr_time_now() + timeout;
    struct pollfd waiting = {fd, POLLOUT, 0};
    int ready, error = 0;
    socklen_t size = sizeof(error);

    do {
        apr_interval_time_t left = end - apr_time_now();
        ready = poll(&waiting, 1, left > 0 ? (int)((left + 999) / 1000) : 0);
    } while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        return ready ? errno : ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

static int open_endpoint(const scgi_endpoint *endpoint, apr_interval_time_t timeout, struct iovec *pieces, int count,
                         apr_size_t *sent, int *failure)
{
    int error = 0, connecting = 0, on = 1;
    int family = endpoint->to.any.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        *failure = errno;
        return -1;
    }
    if (connect(fd, &endpoint->to.any, endpoint->length) < 0) {
        error = errno;
        if (family == AF_UNIX && error == EAGAIN)
            error = connect_when_there_is_room(fd, endpoint, timeout);
        else if (error == EINPROGRESS) {
            error = 0;
            connecting = 1;
        }
    }
    /* On the same machine a TCP connection is there by now, though connect() did not say so: try before waiting. A send
     * that fails while it is not there is a connect that failed. */
    if (!error) {
        error = scgi_send(fd, pieces, count, sent);
        if (connecting && (error == EAGAIN || error == ENOTCONN)) {
            error = wait_until_connected(fd, timeout);
            if (!error)
                error = EAGAIN; /* the rest is the exchange's */
        }
        else if (error && error != EAGAIN && !connecting)
            error = EAGAIN; /* connected, then gone: what came back is still to be read */
        /* More will follow in pieces of its own: they must not wait for the other side's acknowledgement. */
        if (family != AF_UNIX && error == EAGAIN)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    if (error && error != EAGAIN) {
        close(fd);
        *failure = error == EPIPE ? ECONNREFUSED : error;
        return -1;
    }
    return fd;
}

int scgi_connect(const scgi_address *address, apr_interval_time_t timeout, struct iovec *pieces, int count,
                 apr_size_t *sent, apr_status_t *failure)
{
    int n, fd = -1, error = ECONNREFUSED;

    *sent = 0;
    for (n = 0; n < address->count && fd < 0; n++)
        fd = open_endpoint(&address->endpoints[n], timeout, pieces, count, sent, &error);
    *failure = error;
    return fd;
}
