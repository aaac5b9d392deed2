/* The head of an answer: where it ends, and what it says (RFC 3875, 6); and answers that are none of the server's.
 *
 * It is judged as a whole before anything of it goes on. What could be read in two ways is refused: control characters,
 * lines that go on in the next, a length that is not one, lengths that differ.
 */

#include <ctype.h>

#include "apr_portable.h"
#include "mod_scgi.h"

APLOG_USE_MODULE(scgi);

typedef struct {
    const char *name; /* both end with a NUL, in the block that was read */
    char *value;
} header;

/* -- lines -------------------------------------------------------------------------------------------------------- */

apr_size_t scgi_head_end(const char *data, apr_size_t size, apr_size_t seen)
{
    const char *end = data + size, *at = data + (seen > 3 ? seen - 3 : 0);

    if (size && *data == '\n')
        return 1;
    if (size > 1 && data[0] == '\r' && data[1] == '\n')
        return 2;
    while ((at = memchr(at, '\n', (apr_size_t)(end - at)))) {
        at++;
        if (at < end && *at == '\n')
            return (apr_size_t)(at + 1 - data);
        if (end - at > 1 && at[0] == '\r' && at[1] == '\n')
            return (apr_size_t)(at + 2 - data);
    }
    return 0;
}

static int is_token(const char *at)
{
    if (!*at)
        return 0;
    for (; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr("!#$%&'*+-.^_`|~", *at))
            return 0;
    return 1;
}

/* Cut one header out of `size` bytes: its line ends with a newline, before which a CR may stand. */
static const char *cut_header(char *line, apr_size_t size, header *found)
{
    char *end = line + size - 1, *colon, *at;

    if (end > line && end[-1] == '\r')
        end--;
    *end = '\0';
    for (at = line; at < end; at++)
        if (((unsigned char)*at < 0x20 && *at != '\t') || *at == 0x7f)
            return "a control character in its head";
    if (*line == ' ' || *line == '\t')
        return "a header that goes on in a second line";
    colon = strchr(line, ':');
    if (!colon)
        return "a line in its head that is no header";
    *colon = '\0';
    found->name = line;
    if (!is_token(line))
        return "a header whose name is none";
    found->value = colon + 1;
    while (*found->value == ' ' || *found->value == '\t')
        found->value++;
    while (end > found->value && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = '\0';
    return NULL;
}

/* -- headers that mean something here ------------------------------------------------------------------------------ */

static const char *read_status(request_rec *r, const char *value)
{
    int n;

    for (n = 0; n < 3; n++)
        if (!apr_isdigit(value[n]))
            return "a Status that is not three digits";
    if (value[3] && value[3] != ' ')
        return "a Status that is not three digits";
    r->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
    if (r->status < 200 || r->status > 599)
        return "a Status that is not from 200 to 599";
    r->status_line = value[3] && value[4] ? apr_pstrdup(r->pool, value) : NULL;
    return NULL;
}

static const char *read_length(const char *value, scgi_head *head)
{
    apr_off_t length = 0;

    if (!*value || strlen(value) > 18 || strspn(value, "0123456789") != strlen(value))
        return "a Content-Length that is not a number of bytes";
    for (; *value; value++)
        length = length * 10 + (*value - '0');
    if (head->length >= 0 && head->length != length)
        return "two Content-Lengths that differ";
    head->length = length;
    return NULL;
}

/* What is between two neighbours only is not passed on. */
static int is_of_the_connection(const char *name)
{
    static const char *const names[] = {"Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade"};
    apr_size_t n;

    for (n = 0; n < sizeof(names) / sizeof(*names); n++)
        if (ap_cstr_casecmp(name, names[n]) == 0)
            return 1;
    return 0;
}

static const char *take(request_rec *r, const header *one, scgi_head *head, const char **connection)
{
#define IS(word) (ap_cstr_casecmp(one->name, word) == 0)
    if (IS("Status"))
        return head->has_status++ ? "two lines of Status" : read_status(r, one->value);
    if (IS("Content-Length"))
        return read_length(one->value, head);
    if (IS("Transfer-Encoding"))
        return ap_cstr_casecmp(one->value, "identity") == 0 ? NULL : "a Transfer-Encoding, which only HTTP knows";
    if (IS("Content-Type"))
        ap_set_content_type(r, apr_pstrdup(r->pool, one->value));
    else if (IS("X-Sendfile"))
        head->sendfile = apr_pstrdup(r->pool, one->value);
    else if (IS("Connection"))
        *connection = apr_pstrcat(r->pool, *connection, ",", one->value, NULL);
    else if (!is_of_the_connection(one->name))
        apr_table_addn(r->headers_out, apr_pstrdup(r->pool, one->name), apr_pstrdup(r->pool, one->value));
    return NULL;
#undef IS
}

/* Connection may name further headers that end here. */
static void leave_out_named(request_rec *r, const char *connection)
{
    char *name;

    while (*connection && (name = ap_get_token(r->pool, &connection, 0))) {
        if (*name)
            apr_table_unset(r->headers_out, name);
        connection += strspn(connection, ", \t");
        if (!*name && *connection && *connection != ',')
            break;
    }
}

const char *scgi_head_read(request_rec *r, char *data, apr_size_t size, scgi_head *head)
{
    const char *wrong, *connection = "", *location;
    char *line = data, *end = data + size, *next;

    head->length = -1;
    head->redirect = head->sendfile = NULL;
    head->has_status = 0;
    if (*data == '\n' || *data == '\r')
        return "a blank line first, and so no head";
    r->status = HTTP_OK;
    for (; *line != '\n' && *line != '\r'; line = next) {
        header one;

        next = (char *)memchr(line, '\n', (apr_size_t)(end - line)) + 1;
        if ((wrong = cut_header(line, (apr_size_t)(next - line), &one))
            || (wrong = take(r, &one, head, &connection)))
            return wrong;
    }
    if (*line == '\r' && line[1] != '\n')
        return "a control character in its head";
    leave_out_named(r, connection);
    location = apr_table_get(r->headers_out, "Location");
    if (location && !head->has_status) {
        if (location[0] == '/' && location[1] != '/')
            head->redirect = location;
        else
            r->status = HTTP_MOVED_TEMPORARILY;
    }
    return NULL;
}

/* -- answers that end otherwise ------------------------------------------------------------------------------------ */

/* Filters know by an error bucket that no last chunk may follow. Where neither a length nor chunks show it, only a reset
 * is left. */
void scgi_cut(request_rec *r, apr_bucket_brigade *out)
{
    conn_rec *c = r->connection;

    c->keepalive = AP_CONN_CLOSE;
    apr_brigade_cleanup(out);
    APR_BRIGADE_INSERT_TAIL(out, ap_bucket_error_create(HTTP_BAD_GATEWAY, NULL, r->pool, c->bucket_alloc));
    APR_BRIGADE_INSERT_TAIL(out, apr_bucket_flush_create(c->bucket_alloc));
    APR_BRIGADE_INSERT_TAIL(out, apr_bucket_eos_create(c->bucket_alloc));
    ap_pass_brigade(r->output_filters, out);
    if (!c->master && !r->chunked && !apr_table_get(r->headers_out, "Content-Length")) {
        struct linger now = {1, 0};
        apr_os_sock_t client;

        if (apr_os_sock_get(&client, ap_get_conn_socket(c)) == APR_SUCCESS)
            setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        c->aborted = 1;
    }
}

void scgi_redirect(request_rec *r, const char *path)
{
    char *target = apr_pstrdup(r->pool, path);

    ap_discard_request_body(r);
    r->status = HTTP_OK;
    if (!r->header_only) {
        r->method = "GET";
        r->method_number = M_GET;
    }
    apr_table_unset(r->headers_in, "Content-Length");
    apr_table_unset(r->headers_in, "Content-Type");
    apr_table_unset(r->headers_in, "Transfer-Encoding");
    ap_internal_redirect_handler(target, r);
}
