/* Both directions at once, until there is an answer or the truth about why there is none.
 *
 * The request goes to one server after the other until one says something. From its first byte on that one's answer is
 * the answer: what is wrong with it before its head has gone on is a 502 or 504, what is wrong later cuts it so that
 * the client sees the cut. The body is sent as long as the server takes it, while its answer is read already.
 */

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "apr_portable.h"
#include "mod_scgi.h"

APLOG_USE_MODULE(scgi);

#define PIECES 8
#define CONTINUE (-101) /* no verdict yet */
#define AGAIN (-102)    /* nothing came back, and another server may be asked */

typedef struct {
    request_rec *r;
    scgi_job *job;
    scgi_round round;
    scgi_address *address;
    int fd;

    char *head;
    apr_size_t head_size, head_sent;
    scgi_body body;
    int sends;     /* the server still takes what is sent */
    int was_reset; /* sending found that out, and took the error away from receiving */

    char *block; /* what is read of the answer: first its head */
    apr_size_t filled;
    int has_head;
    scgi_head answer;
    apr_off_t received; /* of its body, */
    apr_size_t held;    /* and so much of that is in `out` */
    int passed;         /* something of it has gone on */
    apr_bucket_brigade *out;

    int repeats; /* to other servers, that may still be */
    apr_time_t until; /* something has to have happened */
} exchange;

/* -- verdicts ------------------------------------------------------------------------------------------------------ */

static void not_later_than(exchange *x, apr_interval_time_t timeout)
{
    x->until = apr_time_now() + timeout;
}

/* The server's fault: a status, or where some of the answer has gone on, a cut. */
static int fail(exchange *x, int status, const char *message)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, x->r, "%s (server %s)", message, x->address->name);
    if (!x->passed)
        return status;
    scgi_cut(x->r, x->out);
    return OK;
}

static int late(exchange *x)
{
    if (x->passed)
        return fail(x, HTTP_GATEWAY_TIME_OUT, "SCGI17: an answer stood still for longer than SCGIServerTimeout, so it "
                    "was cut: look what the application waits for, or give it more time");
    if (x->filled)
        return fail(x, HTTP_GATEWAY_TIME_OUT, "SCGI15: the head of an answer was not whole within SCGIServerTimeout: "
                    "look what the application waits for, or give it more time");
    return fail(x, HTTP_GATEWAY_TIME_OUT, "SCGI15: no answer came within SCGIServerTimeout: look what the application "
                "waits for, or give it more time");
}

/* -- the way up ---------------------------------------------------------------------------------------------------- */

static int has_more_to_send(const exchange *x)
{
    return x->sends && (x->head_sent < x->head_size || x->body.left);
}

/* What comes next, for one call: the count of pieces, SCGI_WAIT or a status. */
static int next_pieces(exchange *x, struct iovec *pieces, int *count)
{
    int status, of_body = 0, of_head = x->head_sent < x->head_size;

    if (of_head) {
        pieces[0].iov_base = x->head + x->head_sent;
        pieces[0].iov_len = x->head_size - x->head_sent;
    }
    status = scgi_body_peek(&x->body, pieces + of_head, PIECES - of_head, &of_body);
    *count = of_head + of_body;
    return status == SCGI_WAIT && of_head ? OK : status;
}

static void account(exchange *x, apr_size_t sent)
{
    apr_size_t of_head = x->head_size - x->head_sent;

    if (of_head > sent)
        of_head = sent;
    x->head_sent += of_head;
    if (sent > of_head)
        scgi_body_taken(&x->body, sent - of_head);
}

/* OK: some of it went, there may be more; EAGAIN: the server takes no more for now; SCGI_WAIT: the client gives none
 * for now; else a status. A server that takes no more at all may have said why. */
static int send_some(exchange *x)
{
    struct iovec pieces[PIECES];
    apr_size_t sent;
    int count, error, status = next_pieces(x, pieces, &count);

    if (status != OK)
        return status;
    error = scgi_send(x->fd, pieces, count, &sent);
    if (error == EAGAIN)
        return EAGAIN;
    if (error) {
        x->was_reset = error == ECONNRESET;
        x->sends = 0;
        return OK;
    }
    account(x, sent);
    not_later_than(x, x->job->timeout);
    return OK;
}

/* -- the way back -------------------------------------------------------------------------------------------------- */

static int is_whole(const exchange *x)
{
    return x->answer.length >= 0 && x->received >= x->answer.length;
}

/* Hand on what was read. The last of it ends the request; a body that nobody takes must not hold it back. */
static int pass(exchange *x, int last)
{
    apr_bucket_alloc_t *alloc = x->r->connection->bucket_alloc;

    if (!last || x->body.left)
        APR_BRIGADE_INSERT_TAIL(x->out, apr_bucket_flush_create(alloc));
    if (last)
        APR_BRIGADE_INSERT_TAIL(x->out, apr_bucket_eos_create(alloc));
    x->passed = 1;
    x->held = 0;
    if (ap_pass_brigade(x->r->output_filters, x->out) != APR_SUCCESS || x->r->connection->aborted) {
        x->r->connection->keepalive = AP_CONN_CLOSE; /* the client has gone */
        return OK;
    }
    apr_brigade_cleanup(x->out);
    not_later_than(x, x->job->timeout);
    return last ? OK : CONTINUE;
}

/* Put bytes of the block that belong to the body into the brigade, which owns the block from now on. */
static void keep(exchange *x, apr_size_t from, apr_size_t size)
{
    apr_bucket *bucket = apr_bucket_heap_create(x->block, SCGI_BLOCK, apr_bucket_free, x->r->connection->bucket_alloc);

    x->block = NULL;
    if (x->answer.length >= 0 && (apr_off_t)size > x->answer.length - x->received)
        size = (apr_size_t)(x->answer.length - x->received); /* what follows is not part of it */
    bucket->start += from;
    bucket->length = size;
    x->received += (apr_off_t)size;
    x->held += size;
    APR_BRIGADE_INSERT_TAIL(x->out, bucket);
}

static int redirect(exchange *x)
{
    request_rec *before;
    int count = 1;

    for (before = x->r->prev; before; before = before->prev)
        if (scgi_job_of(before) && scgi_job_of(before)->redirected)
            count++;
    if (count > SCGI_REDIRECTS)
        return fail(x, HTTP_BAD_GATEWAY, "SCGI18: local redirects lead to further ones without end: an answer with a "
                    "Location that is a path, and no Status, is asked for anew; a Status of 302 leaves it to the client");
    x->job->redirected = 1;
    scgi_redirect(x->r, x->answer.redirect);
    return OK;
}

/* The head is whole: pass on what is to be passed on now. */
static int begin_answer(exchange *x, apr_size_t head_size)
{
    request_rec *r = x->r;
    const char *wrong = scgi_head_read(r, x->block, head_size, &x->answer);

    if (wrong)
        return fail(x, HTTP_BAD_GATEWAY, apr_psprintf(r->pool, "SCGI13: the answer has %s, so it was not passed on: "
                    "look which program answers there, and what it wrote", wrong));
    x->has_head = 1;
    if (x->answer.redirect)
        return redirect(x);
    if (x->answer.sendfile && x->job->sendfile_root) {
        close(x->fd);
        x->fd = -1;
        return scgi_sendfile(r, x->job->sendfile_root, x->answer.sendfile);
    }
    if (r->status == HTTP_NO_CONTENT)
        x->answer.length = 0;
    else if (x->answer.length >= 0)
        ap_set_content_length(r, x->answer.length);
    if (r->header_only || r->status == HTTP_NO_CONTENT || r->status == HTTP_NOT_MODIFIED)
        return pass(x, 1); /* a body after that would not be one */
    if (x->filled > head_size)
        keep(x, head_size, x->filled - head_size);
    return CONTINUE;
}

/* The server closed, or the connection was reset. */
static int end_answer(exchange *x, int reset)
{
    if (!x->filled) {
        if (x->repeats && scgi_body_rewind(&x->body)) {
            x->repeats--;
            scgi_address_failed(x->address, 1);
            ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, x->r, "SCGI11: the server %s ended the connection without an "
                          "answer; the next one is asked, since this request may be repeated", x->address->name);
            return AGAIN;
        }
        return fail(x, HTTP_BAD_GATEWAY, "SCGI14: the server ended the connection without an answer: look into its log "
                    "for a worker that died");
    }
    if (!x->has_head)
        return fail(x, HTTP_BAD_GATEWAY, "SCGI14: the server ended the connection within the head of its answer: look "
                    "into its log for a worker that died");
    /* Closing on unread bytes is a reset, and that is how many servers turn a body down. */
    if (x->answer.length >= 0 || (reset && !(x->body.length && x->r->status >= 300)))
        return fail(x, HTTP_BAD_GATEWAY, apr_psprintf(x->r->pool, "SCGI16: an answer ended after %" APR_OFF_T_FMT
                    " bytes of its body, too early: look into the server's log for a worker that died", x->received));
    return pass(x, 1);
}

/* Read until nothing is there; a verdict, or CONTINUE. */
static int receive(exchange *x)
{
    int status = CONTINUE;

    while (status == CONTINUE) {
        ssize_t size;

        if (!x->block)
            x->block = apr_bucket_alloc(SCGI_BLOCK, x->r->connection->bucket_alloc);
        do
            size = recv(x->fd, x->block + (x->has_head ? 0 : x->filled), SCGI_BLOCK - (x->has_head ? 0 : x->filled),
                        MSG_DONTWAIT);
        while (size < 0 && errno == EINTR);
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (size <= 0)
            return end_answer(x, size < 0 || x->was_reset);
        if (x->has_head)
            keep(x, 0, (apr_size_t)size);
        else {
            apr_size_t end, seen = x->filled;

            if (!seen) {
                scgi_address_answered(x->address);
                not_later_than(x, x->job->timeout); /* for all of the head */
            }
            x->filled += (apr_size_t)size;
            if ((end = scgi_head_end(x->block, x->filled, seen)))
                status = begin_answer(x, end);
            else if (x->filled == SCGI_BLOCK)
                return fail(x, HTTP_BAD_GATEWAY, apr_psprintf(x->r->pool, "SCGI13: the answer has a head of more than %d "
                            "bytes, so it was not passed on: look which program answers there", SCGI_BLOCK));
        }
        if (status == CONTINUE && x->has_head && is_whole(x))
            return pass(x, 1);
        if (status == CONTINUE && x->held >= SCGI_BLOCK)
            status = pass(x, 0);
    }
    if (status == CONTINUE && x->has_head && (!x->passed || !APR_BRIGADE_EMPTY(x->out)))
        status = pass(x, 0);
    return status;
}

/* -- both ---------------------------------------------------------------------------------------------------------- */

static int client_socket(request_rec *r)
{
    apr_os_sock_t client;
    apr_socket_t *socket = ap_get_conn_socket(r->connection);

    return socket && apr_os_sock_get(&client, socket) == APR_SUCCESS ? client : -1;
}

/* `sending` is what send_some() said. A verdict, or CONTINUE. */
static int wait_and_receive(exchange *x, int sending)
{
    struct pollfd about[2] = {{x->fd, POLLIN, 0}, {-1, POLLIN, 0}};
    apr_time_t until = x->until;
    apr_interval_time_t left = 0;
    int ready;

    if (sending == EAGAIN)
        about[0].events |= POLLOUT;
    if (sending == SCGI_WAIT) { /* it is the client whom we wait for */
        about[1].fd = client_socket(x->r);
        until = apr_time_now() + x->r->server->timeout;
    }
    if (sending != OK || !has_more_to_send(x))
        left = until - apr_time_now();
    do
        ready = poll(about, 2, left > 0 ? (int)((left + 999) / 1000) : 0);
    while (ready < 0 && errno == EINTR);
    if (about[0].revents & ~POLLOUT)
        return receive(x);
    if (ready || left == 0)
        return CONTINUE;
    if (sending != SCGI_WAIT)
        return late(x);
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, x->r, "SCGI19: the client gave nothing of its body for longer than "
                  "Timeout, so the server %s is left", x->address->name);
    if (!x->passed)
        return HTTP_REQUEST_TIME_OUT;
    return fail(x, HTTP_REQUEST_TIME_OUT, "SCGI19: the client stopped sending its body amid the answer");
}

/* What one server makes of the request: a verdict, or AGAIN. */
static int converse(exchange *x)
{
    int verdict = CONTINUE;

    not_later_than(x, x->job->timeout);
    while (verdict == CONTINUE) {
        int sending = OK;

        if (has_more_to_send(x)) {
            sending = send_some(x);
            if (sending != OK && sending != EAGAIN && sending != SCGI_WAIT)
                return x->passed ? OK : sending; /* the client's own fault; it is logged */
        }
        verdict = wait_and_receive(x, sending);
    }
    return verdict;
}

/* Connect, and send what can be sent at once: OK, AGAIN, or a status. */
static int open_server(exchange *x)
{
    struct iovec pieces[PIECES];
    apr_status_t failure;
    apr_size_t sent;
    int count, status;

    x->head_sent = 0;
    x->sends = 1;
    x->was_reset = 0;
    status = next_pieces(x, pieces, &count);
    if (status != OK)
        return status;
    x->fd = scgi_connect(x->address, x->job->connect_timeout, pieces, count, &sent, &failure);
    if (x->fd < 0) {
        if (!x->round.rounds)
            ap_log_rerror(APLOG_MARK, APLOG_ERR, failure, x->r, "SCGI10: cannot connect to the server %s: look whether "
                          "it runs, listens there, has room in its queue, and lets Apache's user in", x->address->name);
        scgi_address_failed(x->address, failure == ECONNREFUSED || failure == ENOENT || failure == ECONNRESET);
        return AGAIN;
    }
    account(x, sent);
    return OK;
}

static int is_repeatable(const request_rec *r)
{
    return r->method_number == M_GET || r->method_number == M_PUT || r->method_number == M_DELETE
           || r->method_number == M_OPTIONS || r->method_number == M_TRACE;
}

/* The next server to ask; NULL: there is none, or nobody left who wants the answer. */
static scgi_address *next_server(exchange *x)
{
    scgi_address *next;

    while (!(next = scgi_round_next(&x->round)) && scgi_round_again(&x->round)) {
        struct pollfd client = {client_socket(x->r), 0, 0};
        if (poll(&client, 1, SCGI_PAUSE) > 0)
            break;
    }
    return next;
}

int scgi_exchange(request_rec *r, scgi_job *job)
{
    exchange x;
    int status;

    memset(&x, 0, sizeof(x));
    x.r = r;
    x.job = job;
    x.fd = -1;
    if (job->upstream->count > 1 && is_repeatable(r))
        x.repeats = 2 * job->upstream->count - 1;
    if ((status = scgi_body_open(&x.body, r)) != OK)
        return status;
    if (!(x.head = scgi_request_head(r, job, x.body.length, &x.head_size)))
        return HTTP_INTERNAL_SERVER_ERROR;
    x.out = apr_brigade_create(r->pool, r->connection->bucket_alloc);

    scgi_round_begin(&x.round, job->upstream);
    status = AGAIN;
    while (status == AGAIN && (x.address = next_server(&x))) {
        status = open_server(&x);
        if (status == OK)
            status = converse(&x);
        if (x.fd >= 0)
            close(x.fd);
        x.fd = -1;
    }
    if (x.block)
        apr_bucket_free(x.block);
    if (status != AGAIN)
        return status;
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "SCGI12: no server could be asked, so it was a 503: of each it is logged "
                  "why");
    return HTTP_SERVICE_UNAVAILABLE;
}
