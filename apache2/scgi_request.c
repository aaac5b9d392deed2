/* A request of Apache's becomes the head of an SCGI request: one netstring of names and values.
 *
 * One function walks the variables and emits each. It runs twice, counting and then copying; if the two do not agree,
 * nothing is sent. Apache's own ap_add_common_vars() is not used: it builds a table of forty strings for what here is
 * copied from where it lies, and it lets SetEnv write over what the request says.
 */

#include <ctype.h>

#include "mod_scgi.h"

APLOG_USE_MODULE(scgi);

#define MAX_FIXED 32
#define DIGITS 24

typedef struct {
    const char *name;
    apr_size_t name_length;
    const char *value;
} variable;

typedef struct {
    request_rec *r;
    variable fixed[MAX_FIXED];
    int fixed_count;
    const apr_array_header_t *headers;
    const apr_array_header_t *environment;
    const char *env_https;
    int passes_authorization;
    char content_length[DIGITS], server_port[DIGITS], remote_port[DIGITS];
} facts;

/* Where to: while `at` is NULL, bytes are only counted. */
typedef struct {
    char *at;
    apr_size_t size;
} sink;

static void emit(sink *out, const char *prefix, apr_size_t prefix_length, const char *name, apr_size_t name_length,
                 const char *value)
{
    apr_size_t value_length = strlen(value) + 1;

    if (out->at) {
        memcpy(out->at, prefix, prefix_length);
        memcpy(out->at + prefix_length, name, name_length);
        out->at[prefix_length + name_length] = '\0';
        memcpy(out->at + prefix_length + name_length + 1, value, value_length);
        out->at += prefix_length + name_length + 1 + value_length;
    }
    out->size += prefix_length + name_length + 1 + value_length;
}

static void add(facts *known, const char *name, apr_size_t name_length, const char *value)
{
    if (value && known->fixed_count < MAX_FIXED) {
        variable *one = &known->fixed[known->fixed_count++];
        one->name = name;
        one->name_length = name_length;
        one->value = value;
    }
}

#define ADD(name, value) add(known, name, sizeof(name) - 1, value)

/* -- headers ------------------------------------------------------------------------------------------------------ */

/* The length of a name that can become HTTP_NAME and back; 0 for others. An underscore could pass for a dash. */
static apr_size_t plain_name(const char *name)
{
    const char *at;

    for (at = name; *at; at++)
        if (!isalnum((unsigned char)*at) && *at != '-')
            return 0;
    return (apr_size_t)(at - name);
}

static int is_left_out(const facts *known, const char *name, apr_size_t length)
{
#define IS(word) (length == sizeof(word) - 1 && ap_cstr_casecmp(name, word) == 0)
    switch (*name | 0x20) {
    case 'a':
        return IS("authorization") && !known->passes_authorization;
    case 'c':
        return IS("content-length") || IS("content-type"); /* they have variables of their own */
    case 'p': /* HTTP_PROXY would be taken for a setting by libraries */
        return IS("proxy") || (IS("proxy-authorization") && !known->passes_authorization);
    case 't':
        return IS("transfer-encoding"); /* the body is sent without it */
    }
    return 0;
#undef IS
}

static void emit_header(sink *out, const char *name, apr_size_t length, const char *value)
{
    char *at = out->at ? out->at + 5 : NULL;

    emit(out, "HTTP_", 5, name, length, value);
    if (at)
        for (; length; length--, at++)
            *at = *at == '-' ? '_' : (char)apr_toupper(*at);
}

/* Apache has joined repeated headers with commas before any module sees them, cookies too, though a cookie header
 * separates with semicolons. A value that stands where it was read, one colon (and a space) after its name, was alone
 * and stays as it is; in one that was put together each ", name=" was the seam. (HTTP/2 joins them rightly itself.) */
static const char *cookies(request_rec *r, const char *name, const char *value)
{
    apr_uintptr_t gap = (apr_uintptr_t)value - ((apr_uintptr_t)name + strlen(name));
    char *joined, *at;

    if (gap <= 2 || r->proto_num >= HTTP_VERSION(2, 0) || !strstr(value, ", "))
        return value;
    joined = apr_pstrdup(r->pool, value);
    for (at = joined; (at = strstr(at, ", ")); at += 2) {
        apr_size_t word = strcspn(at + 2, "=;, \t\"");
        if (word && at[2 + word] == '=')
            *at = ';';
    }
    return joined;
}

/* RequestHeader add and the like may have left a name there twice. */
static int has_repeats(const apr_array_header_t *headers)
{
    const apr_table_entry_t *all = (const apr_table_entry_t *)headers->elts;
    int n, m;

    for (n = 1; n < headers->nelts; n++)
        for (m = 0; m < n; m++)
            if (all[n].key_checksum == all[m].key_checksum && ap_cstr_casecmp(all[n].key, all[m].key) == 0)
                return 1;
    return 0;
}

/* The headers as they are to be sent: each name once, cookies as cookies. */
static const apr_array_header_t *joined_headers(request_rec *r)
{
    apr_table_t *headers = r->headers_in;
    apr_table_entry_t *all;
    int n;

    if (has_repeats(apr_table_elts(headers))) {
        headers = apr_table_copy(r->pool, headers);
        apr_table_compress(headers, APR_OVERLAP_TABLES_MERGE);
    }
    all = (apr_table_entry_t *)apr_table_elts(headers)->elts;
    for (n = 0; n < apr_table_elts(headers)->nelts; n++)
        if ((*all[n].key | 0x20) == 'c' && ap_cstr_casecmp(all[n].key, "Cookie") == 0) {
            const char *value = cookies(r, all[n].key, all[n].val);
            if (value != all[n].val) {
                headers = headers == r->headers_in ? apr_table_copy(r->pool, headers) : headers;
                apr_table_setn(headers, "Cookie", value);
            }
            break;
        }
    return apr_table_elts(headers);
}

/* -- SetEnv and its like ------------------------------------------------------------------------------------------ */

/* What the request alone decides, or a client library would take for a setting of its own. */
static int is_reserved(const char *name)
{
    static const char *const names[] = {"AUTH_TYPE",      "CONTENT_LENGTH",  "CONTENT_TYPE",    "DOCUMENT_ROOT",
                                        "GATEWAY_INTERFACE", "HTTPS",        "HTTP_PROXY",      "PATH_INFO",
                                        "PATH_TRANSLATED", "QUERY_STRING",   "REMOTE_ADDR",     "REMOTE_HOST",
                                        "REMOTE_PORT",    "REMOTE_USER",     "REQUEST_METHOD",  "REQUEST_SCHEME",
                                        "REQUEST_URI",    "SCGI",            "SCRIPT_FILENAME", "SCRIPT_NAME",
                                        "SERVER_ADDR",    "SERVER_ADMIN",    "SERVER_NAME",     "SERVER_PORT",
                                        "SERVER_PROTOCOL", "SERVER_SOFTWARE"};
    apr_size_t n;

    for (n = 0; n < sizeof(names) / sizeof(*names); n++)
        if (strcmp(name, names[n]) == 0)
            return 1;
    return strncmp(name, "wsgi.", 5) == 0 || strncmp(name, "scgi.", 5) == 0;
}

/* HTTP_AUTHORIZATION set by a RewriteRule is an old habit; a header of that name, if it is sent, comes first. */
static int is_header_too(const facts *known, const char *name)
{
    const apr_table_entry_t *all = (const apr_table_entry_t *)known->headers->elts;
    int n;

    for (n = 0; n < known->headers->nelts; n++) {
        apr_size_t length = plain_name(all[n].key), at;
        if (length != strlen(name) - 5 || is_left_out(known, all[n].key, length))
            continue;
        for (at = 0; at < length; at++)
            if ((all[n].key[at] == '-' ? '_' : apr_toupper(all[n].key[at])) != apr_toupper(name[5 + at]))
                break;
        if (at == length)
            return 1;
    }
    return 0;
}

/* A name that servers accept: letters, digits, "_", "-" and "."; and one that takes nobody else's place. */
static int is_sent(const facts *known, const apr_table_entry_t *entry)
{
    const char *at;

    if (!entry->key || !entry->val || !*entry->key)
        return 0;
    for (at = entry->key; *at; at++)
        if (!isalnum((unsigned char)*at) && *at != '_' && *at != '-' && *at != '.')
            return 0;
    /* SetEnv may leave a name there twice; the first is the one that counts. */
    if (is_reserved(entry->key) || apr_table_get(known->r->subprocess_env, entry->key) != entry->val)
        return 0;
    return strncmp(entry->key, "HTTP_", 5) != 0 || !is_header_too(known, entry->key);
}

/* -- all of it ---------------------------------------------------------------------------------------------------- */

static void walk(const facts *known, sink *out)
{
    const apr_table_entry_t *entries = (const apr_table_entry_t *)known->headers->elts;
    int n;

    for (n = 0; n < known->fixed_count; n++)
        emit(out, "", 0, known->fixed[n].name, known->fixed[n].name_length, known->fixed[n].value);
    for (n = 0; n < known->headers->nelts; n++) {
        apr_size_t length = plain_name(entries[n].key);
        if (length && !is_left_out(known, entries[n].key, length))
            emit_header(out, entries[n].key, length, entries[n].val);
    }
    entries = (const apr_table_entry_t *)known->environment->elts;
    for (n = 0; n < known->environment->nelts; n++)
        if (is_sent(known, &entries[n]))
            emit(out, "", 0, entries[n].key, strlen(entries[n].key), entries[n].val);
}

/* The target as the client sent it, without scheme and host. After a local redirect it is the redirect's: the answer is
 * to be as if the client had asked for that (RFC 3875, 6.2.2). */
static const char *request_uri(request_rec *r)
{
    const char *start, *end, *slash;
    scgi_job *before = r->prev ? scgi_job_of(r->prev) : NULL;

    if ((before && before->redirected) || !r->the_request || !(start = strchr(r->the_request, ' ')))
        return r->unparsed_uri;
    start += strspn(start, " ");
    end = start + strcspn(start, " ");
    if (*start != '/' && (slash = strstr(start, "://")) && slash < end) {
        start = slash + 3 + strcspn(slash + 3, "/? ");
        if (*start != '/')
            return apr_pstrcat(r->pool, "/", apr_pstrmemdup(r->pool, start, (apr_size_t)(end - start)), NULL);
    }
    return apr_pstrmemdup(r->pool, start, (apr_size_t)(end - start));
}

static const char *digits_of(char *buffer, apr_off_t number)
{
    apr_snprintf(buffer, DIGITS, "%" APR_OFF_T_FMT, number);
    return buffer;
}

static void gather(facts *known, request_rec *r, const scgi_job *job, apr_off_t body_length)
{
    const core_dir_config *core = ap_get_core_module_config(r->per_dir_config);
    const char *env_https = apr_table_get(r->subprocess_env, "HTTPS");
    int secure = env_https ? ap_cstr_casecmp(env_https, "on") == 0 || strcmp(env_https, "1") == 0
                           : strcmp(ap_http_scheme(r), "https") == 0;

    known->r = r;
    known->fixed_count = 0;
    known->passes_authorization = core->cgi_pass_auth == AP_CGI_PASS_AUTH_ON;
    known->headers = joined_headers(r);
    known->environment = apr_table_elts(r->subprocess_env);

    ADD("CONTENT_LENGTH", digits_of(known->content_length, body_length));
    ADD("SCGI", "1");
    ADD("REQUEST_METHOD", r->method);
    ADD("REQUEST_URI", request_uri(r));
    ADD("QUERY_STRING", r->args ? r->args : "");
    ADD("SCRIPT_NAME", apr_pstrmemdup(r->pool, r->uri, job->script_length));
    ADD("PATH_INFO", r->uri + job->script_length);
    ADD("CONTENT_TYPE", apr_table_get(r->headers_in, "Content-Type"));
    ADD("SERVER_PROTOCOL", r->protocol);
    ADD("REQUEST_SCHEME", secure ? "https" : "http");
    ADD("HTTPS", secure ? "on" : NULL); /* absent, not "off", as with nginx and lighttpd */
    ADD("SERVER_SOFTWARE", ap_get_server_banner());
    ADD("SERVER_NAME", ap_escape_html(r->pool, ap_get_server_name_for_url(r)));
    ADD("SERVER_ADDR", r->connection->local_ip);
    ADD("SERVER_PORT", digits_of(known->server_port, ap_get_server_port(r)));
    ADD("SERVER_ADMIN", r->server->server_admin);
    ADD("DOCUMENT_ROOT", ap_document_root(r));
    ADD("REMOTE_ADDR", r->useragent_ip);
    ADD("REMOTE_PORT", digits_of(known->remote_port, r->useragent_addr->port));
    ADD("REMOTE_HOST", ap_get_useragent_host(r, REMOTE_HOST, NULL)); /* with HostnameLookups only */
    ADD("REMOTE_USER", r->user);
    ADD("AUTH_TYPE", r->user ? r->ap_auth_type : NULL);
}

char *scgi_request_head(request_rec *r, const scgi_job *job, apr_off_t body_length, apr_size_t *size)
{
    facts known;
    sink counted = {NULL, 0}, copied;
    char length[DIGITS], *buffer;
    int length_size;

    gather(&known, r, job, body_length);
    walk(&known, &counted);
    length_size = apr_snprintf(length, sizeof(length), "%" APR_SIZE_T_FMT ":", counted.size);
    *size = (apr_size_t)length_size + counted.size + 1;
    buffer = apr_palloc(r->pool, *size);
    memcpy(buffer, length, (apr_size_t)length_size);

    copied.at = buffer + length_size;
    copied.size = 0;
    walk(&known, &copied);
    if (copied.size != counted.size) {
        ap_log_rerror(APLOG_MARK, APLOG_CRIT, 0, r,
                      "SCGI30: the request's head has %" APR_SIZE_T_FMT " bytes, %" APR_SIZE_T_FMT
                      " were counted: this is a fault of mod_scgi, please report it; nothing was sent",
                      copied.size, counted.size);
        return NULL;
    }
    *copied.at = ',';
    return buffer;
}
