/* What the files of the module know of each other.
 *
 *   mod_scgi.c       directives, merging, and the hooks: which requests are ours
 *   scgi_address.c   addresses as they are written, and what they resolve to
 *   scgi_request.c   a request of Apache's becomes the head of an SCGI request
 *   scgi_body.c      its body: none, streamed, or spooled because nobody knows how long it is
 *   scgi_upstream.c  which server to ask, and the connection to it
 *   scgi_exchange.c  both directions at once, until there is an answer or the truth about why there is none
 *   scgi_response.c  the head of an answer
 *   scgi_sendfile.c  X-Sendfile
 *
 * Only mod_scgi.c knows the configuration; the others are handed an scgi_job. Messages begin with a code; each has its
 * section in docs/reference/apache-messages.md.
 */

#ifndef MOD_SCGI_H
#define MOD_SCGI_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "util_script.h"
#include "apr_buckets.h"
#include "apr_fnmatch.h"
#include "apr_lib.h"
#include "apr_strings.h"

#define SCGI_VERSION "1.0"
#define SCGI_HANDLER "scgi-handler"
#define SCGI_DEFAULT_ADDRESS "127.0.0.1:4000"
#define SCGI_DEFAULT_TIMEOUT apr_time_from_sec(60)
#define SCGI_DEFAULT_CONNECT_TIMEOUT apr_time_from_sec(5)
#define SCGI_REST apr_time_from_sec(2) /* a server that failed is asked last for so long */
#define SCGI_PAUSE 50                  /* milliseconds until servers that have just gone are asked again */
#define SCGI_ROUNDS 40                 /* and so often: 2 s */
#define SCGI_BLOCK 65000               /* of an answer or a body: a bucket of it is 64 KiB to the allocator */
#define SCGI_REDIRECTS 5               /* local redirects that one request may lead to */

/* -- addresses ---------------------------------------------------------------------------------------------------- */

typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_un path;
        struct sockaddr_storage room;
    } to;
    socklen_t length;
} scgi_endpoint;

typedef struct {
    const char *name;         /* as it was written, for messages */
    scgi_endpoint *endpoints; /* a host name may stand for several; they are tried in turn */
    int count;
    /* Of this child process; read and written atomically: */
    apr_int64_t rests_until;
    apr_int64_t gone_since; /* 0: there, as far as we know */
} scgi_address;

typedef struct {
    scgi_address *addresses;
    int count;
    unsigned int next; /* whose turn it is, in this child process; counted up atomically */
} scgi_upstream;

/* NULL, or what is wrong with one of them. */
const char *scgi_upstream_make(scgi_upstream **made, int count, char *const words[], apr_pool_t *pool);

/* -- one request -------------------------------------------------------------------------------------------------- */

typedef struct {
    scgi_upstream *upstream;
    apr_size_t script_length; /* of r->uri: SCRIPT_NAME; the rest is PATH_INFO */
    apr_interval_time_t timeout;
    apr_interval_time_t connect_timeout;
    const char *sendfile_root; /* NULL: X-Sendfile is off */
    int redirected;            /* its answer was a local redirect */
} scgi_job;

/* The job of an earlier request of the same chain of internal redirects; NULL if that was not ours. */
scgi_job *scgi_job_of(request_rec *r);

typedef enum { SCGI_BODY_NONE, SCGI_BODY_STREAM, SCGI_BODY_SPOOLED } scgi_body_kind;

typedef struct {
    request_rec *r;
    scgi_body_kind kind;
    apr_off_t length;       /* what CONTENT_LENGTH says */
    apr_off_t left;         /* not yet taken by the server */
    apr_bucket_brigade *bb; /* streamed: what was read and is not yet taken */
    int begun;              /* something of a stream is gone for good */
    int eos;
    char *memory;      /* spooled: a block of it, */
    apr_size_t filled; /* so much of that, */
    apr_file_t *file;  /* and all of it, if it is more than a block */
    apr_off_t block_at;
} scgi_body;

#define SCGI_WAIT (-100) /* nothing to be had at the moment */

/* OK, or the status that the client deserves. Afterwards the length is known. */
int scgi_body_open(scgi_body *body, request_rec *r);
/* What can be sent next, as at most `room` pieces; `*count` is 0 at the end. OK, SCGI_WAIT, or a status. */
int scgi_body_peek(scgi_body *body, struct iovec *pieces, int room, int *count);
/* The server took so many bytes of what was shown. */
void scgi_body_taken(scgi_body *body, apr_size_t size);
/* Whether it can be sent once more, to another server; if so, it begins anew. */
int scgi_body_rewind(scgi_body *body);

/* The netstring; NULL (it is logged) if it could not be built. */
char *scgi_request_head(request_rec *r, const scgi_job *job, apr_off_t body_length, apr_size_t *size);

/* -- the connection ----------------------------------------------------------------------------------------------- */

/* Go through the servers of an upstream, whose turn it is first, those that rest last; NULL after the last one. */
typedef struct {
    scgi_upstream *upstream;
    unsigned int first;
    int tried;
    apr_uint64_t asked; /* a bit for each: Apache hands a directive at most 64 words */
    int rounds; /* that all of them failed */
    apr_time_t now;
} scgi_round;

void scgi_round_begin(scgi_round *round, scgi_upstream *upstream);
scgi_address *scgi_round_next(scgi_round *round);
/* All failed: whether to ask them once more after a pause, since one of several may be just starting again. */
int scgi_round_again(scgi_round *round);
/* `gone`: nobody listens, or whoever did has died; not: too slow to accept. */
void scgi_address_failed(scgi_address *address, int gone);
void scgi_address_answered(scgi_address *address);

/* Connect, and send what can be sent at once. The descriptor (it does not block), or -1 with the reason in `*failure`:
 * no byte has reached anybody then. */
int scgi_connect(const scgi_address *address, apr_interval_time_t timeout, struct iovec *pieces, int count,
                 apr_size_t *sent, apr_status_t *failure);
/* An errno, or 0: send what can be sent without waiting. */
int scgi_send(int fd, struct iovec *pieces, int count, apr_size_t *sent);

/* -- the answer --------------------------------------------------------------------------------------------------- */

typedef struct {
    int has_status;       /* its lines of Status */
    apr_off_t length;     /* -1: it ends with the connection */
    const char *redirect; /* a local one */
    const char *sendfile; /* of the header X-Sendfile */
} scgi_head;

/* Where the head ends (its blank line included), 0 if that has not come yet. `seen` bytes were looked at before. */
apr_size_t scgi_head_end(const char *data, apr_size_t size, apr_size_t seen);
/* Read it into status and headers of the request. NULL, or what is wrong with it. `data` is changed. */
const char *scgi_head_read(request_rec *r, char *data, apr_size_t size, scgi_head *head);
/* The answer ends here, before its end: make the client see that. */
void scgi_cut(request_rec *r, apr_bucket_brigade *out);
/* Answer with what is at this path of our own site, as RFC 3875 has it for a local redirect. */
void scgi_redirect(request_rec *r, const char *path);

/* Send the file instead of a body: OK, or a status. */
int scgi_sendfile(request_rec *r, const char *root, const char *path);

/* The handler's work: OK, or a status. */
int scgi_exchange(request_rec *r, scgi_job *job);

#endif
