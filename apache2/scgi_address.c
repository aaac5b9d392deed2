/* Addresses as people write them, and the sockaddrs that they stand for.
 *
 * Names are looked up once, when Apache reads its configuration: a request never waits for DNS. The grammar is that of
 * `scgi serve --listen`: 4000, :4000, host:4000, [::1]:4000, unix:/path, /path.
 */

#include <stdlib.h>

#include "mod_scgi.h"

static const char *unix_socket(scgi_address *address, const char *path, apr_pool_t *pool)
{
    scgi_endpoint *endpoint = apr_pcalloc(pool, sizeof(*endpoint));
    apr_size_t length = strlen(path);

    if (*path != '/')
        return "the path of a unix socket begins with a slash, as in unix:/run/app.sock";
    if (length >= sizeof(endpoint->to.path.sun_path))
        return "the path of a unix socket has at most 107 bytes";
    endpoint->to.path.sun_family = AF_UNIX;
    memcpy(endpoint->to.path.sun_path, path, length + 1);
    endpoint->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    address->endpoints = endpoint;
    address->count = 1;
    return NULL;
}

static const char *tcp_host(scgi_address *address, const char *host, apr_port_t port, apr_pool_t *pool)
{
    apr_sockaddr_t *found, *one;
    apr_status_t rv = apr_sockaddr_info_get(&found, host, APR_UNSPEC, port, 0, pool);
    int count = 0;

    if (rv != APR_SUCCESS)
        return apr_psprintf(pool, "SCGI04: the host %s is not known: check its spelling, or write its IP address", host);
    for (one = found; one; one = one->next)
        count++;
    address->endpoints = apr_pcalloc(pool, (apr_size_t)count * sizeof(scgi_endpoint));
    for (one = found; one; one = one->next) {
        scgi_endpoint *endpoint = &address->endpoints[address->count++];
        memcpy(&endpoint->to, &one->sa, (apr_size_t)one->salen);
        endpoint->length = one->salen;
    }
    return NULL;
}

static const char *tcp(scgi_address *address, const char *word, apr_pool_t *pool)
{
    const char *colon = strrchr(word, ':');
    const char *digits = colon ? colon + 1 : word;
    char *host = colon ? apr_pstrmemdup(pool, word, (apr_size_t)(colon - word)) : "";
    apr_size_t length = strlen(host);

    if (strspn(digits, "0123456789") != strlen(digits) || !*digits || strlen(digits) > 5 || atoi(digits) < 1
        || atoi(digits) > 65535)
        return "expected HOST:PORT with a port from 1 to 65535, [IPV6]:PORT, or unix:/PATH";
    if (*host == '[') {
        if (host[length - 1] != ']' || length < 3)
            return "an IPv6 address stands in brackets, as in [::1]:4000";
        host[length - 1] = '\0';
        host++;
    }
    else if (strchr(host, ':'))
        return "an IPv6 address stands in brackets, as in [::1]:4000";
    return tcp_host(address, *host ? host : "127.0.0.1", (apr_port_t)atoi(digits), pool);
}

const char *scgi_upstream_make(scgi_upstream **made, int count, char *const words[], apr_pool_t *pool)
{
    scgi_upstream *upstream = apr_pcalloc(pool, sizeof(*upstream));
    int n;

    upstream->addresses = apr_pcalloc(pool, (apr_size_t)count * sizeof(scgi_address));
    upstream->count = count;
    for (n = 0; n < count; n++) {
        scgi_address *address = &upstream->addresses[n];
        const char *word = words[n], *wrong;

        address->name = apr_pstrdup(pool, word);
        if (strncmp(word, "unix:", 5) == 0)
            wrong = unix_socket(address, word + 5, pool);
        else if (strchr(word, '/'))
            wrong = unix_socket(address, word, pool);
        else
            wrong = tcp(address, word, pool);
        if (wrong)
            return strncmp(wrong, "SCGI", 4) == 0
                       ? wrong
                       : apr_psprintf(pool, "SCGI01: %s is not the address of a server: %s", word, wrong);
    }
    *made = upstream;
    return NULL;
}
