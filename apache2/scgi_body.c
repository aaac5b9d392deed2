/* The body of a request, as pieces to be sent.
 *
 * A length that is known goes into CONTENT_LENGTH, and the body is passed on as it comes. SCGI has no other way to say
 * where a body ends, so one of unknown length (in chunks, or with HTTP/2) is read to its end first: a block of it stays
 * in memory, more goes to a file without a name. Apache's own filters enforce LimitRequestBody and the timeouts.
 */

#include <errno.h>
#include <unistd.h>

#include "mod_scgi.h"

APLOG_USE_MODULE(scgi);

/* The status that the client deserves. Its own faults are Apache's to name: 400, 408, 413. */
static int client_failed(request_rec *r, apr_status_t rv)
{
    int status = APR_STATUS_IS_TIMEUP(rv) ? HTTP_REQUEST_TIME_OUT : ap_map_http_request_error(rv, HTTP_BAD_REQUEST);

    ap_log_rerror(APLOG_MARK, APLOG_INFO, rv, r,
                  "SCGI31: the body of the request did not arrive whole, so the server is left: the client went "
                  "away, was too slow, or sent more than LimitRequestBody allows");
    return status;
}

static int spool_failed(request_rec *r, apr_status_t rv)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, r,
                  "SCGI32: a request's body of unknown length could not be kept in a temporary file: make room in, or "
                  "give Apache's user access to, the folder for temporary files (the variable TMPDIR names it)");
    return HTTP_INTERNAL_SERVER_ERROR;
}

static apr_status_t open_spool(scgi_body *body)
{
    const char *folder;
    char *name;
    apr_status_t rv = apr_temp_dir_get(&folder, body->r->pool);

    if (rv != APR_SUCCESS)
        return rv;
    name = apr_pstrcat(body->r->pool, folder, "/scgi-body-XXXXXX", NULL);
    rv = apr_file_mktemp(&body->file, name, APR_CREATE | APR_READ | APR_WRITE | APR_EXCL | APR_BINARY, body->r->pool);
    if (rv == APR_SUCCESS)
        apr_file_remove(name, body->r->pool);
    return rv;
}

static apr_status_t keep(scgi_body *body, const char *data, apr_size_t size)
{
    apr_status_t rv = APR_SUCCESS;

    if (!body->file && body->filled + size > SCGI_BLOCK) {
        rv = open_spool(body);
        if (rv == APR_SUCCESS && body->filled)
            rv = apr_file_write_full(body->file, body->memory, body->filled, NULL);
        body->filled = 0;
    }
    if (rv == APR_SUCCESS && body->file)
        rv = apr_file_write_full(body->file, data, size, NULL);
    else if (rv == APR_SUCCESS) {
        memcpy(body->memory + body->filled, data, size);
        body->filled += size;
    }
    body->length += (apr_off_t)size;
    return rv;
}

static int spool(scgi_body *body)
{
    request_rec *r = body->r;
    apr_bucket *bucket;
    apr_status_t rv;

    body->kind = SCGI_BODY_SPOOLED;
    body->length = 0;
    body->memory = apr_palloc(r->pool, SCGI_BLOCK);
    while (!body->eos) {
        rv = ap_get_brigade(r->input_filters, body->bb, AP_MODE_READBYTES, APR_BLOCK_READ, SCGI_BLOCK);
        if (rv != APR_SUCCESS)
            return client_failed(r, rv);
        while (!APR_BRIGADE_EMPTY(body->bb)) {
            const char *data;
            apr_size_t size;

            bucket = APR_BRIGADE_FIRST(body->bb);
            if (APR_BUCKET_IS_EOS(bucket))
                body->eos = 1;
            else if (!APR_BUCKET_IS_METADATA(bucket)) {
                if ((rv = apr_bucket_read(bucket, &data, &size, APR_BLOCK_READ)) != APR_SUCCESS)
                    return client_failed(r, rv);
                if ((rv = keep(body, data, size)) != APR_SUCCESS)
                    return spool_failed(r, rv);
            }
            apr_bucket_delete(bucket);
        }
    }
    body->left = body->length;
    if (!body->length)
        body->kind = SCGI_BODY_NONE;
    return OK;
}

int scgi_body_open(scgi_body *body, request_rec *r)
{
    int status;

    memset(body, 0, sizeof(*body));
    body->r = r;
    /* Checks both headers, and the limit. An internal redirect or subrequest brings no body of its own. */
    if ((status = ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK)) != OK)
        return status;
    if (!r->read_chunked && !r->remaining && !r->connection->master)
        return OK;
    if (r->main || (r->prev && !r->read_chunked && !r->remaining))
        return OK;
    body->bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    /* With HTTP/2 there may be a body though no header says so, and no socket to wait at for more of it. */
    if (r->read_chunked || r->connection->master)
        return spool(body);
    if (r->remaining) {
        body->kind = SCGI_BODY_STREAM;
        body->length = body->left = r->remaining;
    }
    return OK;
}

static int peek_spooled(scgi_body *body, struct iovec *piece, int *count)
{
    apr_off_t at = body->length - body->left;

    if (body->file && (at < body->block_at || at >= body->block_at + (apr_off_t)body->filled)) {
        apr_os_file_t fd;
        ssize_t got;

        apr_os_file_get(&fd, body->file);
        do
            got = pread(fd, body->memory, SCGI_BLOCK, at);
        while (got < 0 && errno == EINTR);
        if (got <= 0)
            return spool_failed(body->r, got ? errno : APR_EOF);
        body->block_at = at;
        body->filled = (apr_size_t)got;
    }
    piece->iov_base = body->memory + (at - body->block_at);
    piece->iov_len = body->filled - (apr_size_t)(at - body->block_at);
    *count = 1;
    return OK;
}

int scgi_body_peek(scgi_body *body, struct iovec *pieces, int room, int *count)
{
    int may_block = body->r->expecting_100; /* only then does Apache ask the client to go on */
    apr_bucket *bucket;
    apr_size_t shown = 0;
    apr_status_t rv;

    *count = 0;
    if (!body->left)
        return OK;
    if (body->kind == SCGI_BODY_SPOOLED)
        return peek_spooled(body, pieces, count);
    bucket = APR_BRIGADE_FIRST(body->bb);
    while (*count < room && shown < SCGI_BLOCK && (apr_off_t)shown < body->left) {
        const char *data;
        apr_size_t size;

        if (bucket == APR_BRIGADE_SENTINEL(body->bb)) {
            apr_bucket_brigade *more = apr_brigade_create(body->r->pool, body->r->connection->bucket_alloc);
            rv = ap_get_brigade(body->r->input_filters, more, AP_MODE_READBYTES,
                                may_block && !*count ? APR_BLOCK_READ : APR_NONBLOCK_READ, SCGI_BLOCK);
            if (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(more)) {
                bucket = APR_BRIGADE_FIRST(more);
                APR_BRIGADE_CONCAT(body->bb, more);
            }
            apr_brigade_destroy(more);
            if (*count && (rv != APR_SUCCESS || bucket == APR_BRIGADE_SENTINEL(body->bb)))
                return OK; /* an error comes again */
            if (APR_STATUS_IS_EAGAIN(rv) || (rv == APR_SUCCESS && bucket == APR_BRIGADE_SENTINEL(body->bb)))
                return SCGI_WAIT;
            if (rv != APR_SUCCESS)
                return client_failed(body->r, rv);
        }
        if (APR_BUCKET_IS_EOS(bucket)) /* before its length */
            return *count ? OK : client_failed(body->r, APR_INCOMPLETE);
        if (APR_BUCKET_IS_METADATA(bucket)) {
            bucket = APR_BUCKET_NEXT(bucket);
            continue;
        }
        if ((rv = apr_bucket_read(bucket, &data, &size, APR_BLOCK_READ)) != APR_SUCCESS)
            return client_failed(body->r, rv);
        if (size) {
            if ((apr_off_t)(shown + size) > body->left)
                size = (apr_size_t)(body->left - (apr_off_t)shown);
            pieces[*count].iov_base = (char *)data;
            pieces[(*count)++].iov_len = size;
            shown += size;
        }
        bucket = APR_BUCKET_NEXT(bucket);
    }
    return OK;
}

void scgi_body_taken(scgi_body *body, apr_size_t size)
{
    body->left -= (apr_off_t)size;
    if (body->kind != SCGI_BODY_STREAM)
        return;
    body->begun |= size != 0;
    while (size || (!APR_BRIGADE_EMPTY(body->bb) && APR_BUCKET_IS_METADATA(APR_BRIGADE_FIRST(body->bb))
                    && !APR_BUCKET_IS_EOS(APR_BRIGADE_FIRST(body->bb)))) {
        apr_bucket *bucket = APR_BRIGADE_FIRST(body->bb);
        if (!APR_BUCKET_IS_METADATA(bucket) && bucket->length > size) {
            apr_bucket_split(bucket, size);
            size = bucket->length; /* the part that went */
        }
        if (!APR_BUCKET_IS_METADATA(bucket))
            size -= bucket->length;
        apr_bucket_delete(bucket);
    }
}

int scgi_body_rewind(scgi_body *body)
{
    if (body->kind == SCGI_BODY_STREAM && body->begun)
        return 0;
    body->left = body->length;
    return 1;
}
