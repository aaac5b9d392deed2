/* cgi2scgi: answers one CGI request by asking an SCGI server, for web servers that only speak CGI.
 *
 * A web server starts this program for each request. It sends the request's own variables and exactly CONTENT_LENGTH
 * bytes of body to the SCGI server, and passes the answer on. docs/reference/cgi2scgi.md says how it learns which server
 * that is.
 *
 * The rules it keeps:
 *   - No request chooses the server. Old web servers make arguments of a query (RFC 3875, 4.4), so arguments count
 *     only where no web server is: without GATEWAY_INTERFACE.
 *   - A head is judged whole before a byte of it goes out; until then, whatever is wrong has a status of its own.
 *   - Body and answer move at the same time, in constant memory: a server may answer before it has read everything.
 *   - Nothing is sent twice.
 *
 * Exit status: 0, a whole answer was given, be it one of ours; 1, the answer broke off; 2, not called as a CGI program.
 */

#define _POSIX_C_SOURCE 200809L

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/auxv.h>
#endif

#ifndef PIPE_BUF
#define PIPE_BUF 512
#endif

enum {
    HEAD_LIMIT = 65536, /* of an answer; nginx takes 4096 bytes, lighttpd 64 KiB */
    CHUNK = 65536,
    LINE_LIMIT = 1024, /* of a configuration file */
    LINGER = 5000,     /* ms without a byte from a web server that is still sending, and is not waited for any more */
    FULL_QUEUE = 10,   /* ms between looks whether a full queue has room again; no event says so */
};

#define MOST_SECONDS 86400
#define MOST_BYTES INT64_MAX

extern char **environ;

static struct {
    char server[LINE_LIMIT];
    char pass[LINE_LIMIT]; /* more variables to send: NAME or PREFIX*, between spaces */
    int64_t timeout;       /* ms */
    int64_t connect_timeout;
} settings = {.timeout = 60000, .connect_timeout = 5000};

static struct {
    int64_t body_length;
    int64_t body_left; /* bytes of it that the web server has yet to give */
    bool is_head;      /* a HEAD request */
    bool begun;        /* a byte of the answer has gone out */
} request;

static int server = -1; /* the connection to it */

/* -- time ---------------------------------------------------------------------------------------------------------- */

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* For poll(): rounded up, so that nobody spins until a deadline. */
static int until(int64_t deadline)
{
    int64_t left = deadline - now();
    return left < 0 ? 0 : left >= INT_MAX ? INT_MAX : (int)left + 1;
}

/* -- the end ------------------------------------------------------------------------------------------------------- */

/* End after a whole answer. What the web server still sends is taken first: busybox's httpd leaves its client when we
 * end, and closing a connection on unread bytes is a reset, which can overtake the answer. */
static _Noreturn void leave(void)
{
    static char dropped[CHUNK];
    int64_t deadline = now() + settings.timeout;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    if (server >= 0)
        close(server); /* a request that is not whole must not wait for its rest */
    while (request.body_left > 0 && now() < deadline && poll(&in, 1, LINGER) > 0) {
        size_t wanted = request.body_left < CHUNK ? (size_t)request.body_left : CHUNK;
        ssize_t count = read(STDIN_FILENO, dropped, wanted);
        if (count <= 0)
            break;
        request.body_left -= count;
    }
    exit(EXIT_SUCCESS);
}

/* What a client is told; the reason is for the web server's error log. */
static const char *page_for(int status)
{
    switch (status) {
    case 400: return "400 Bad Request\nThe request did not come whole.\n";
    case 408: return "408 Request Timeout\nThe request body did not come in time.\n";
    case 411: return "411 Length Required\nThe length of the request body is not known.\n";
    case 502: return "502 Bad Gateway\nThe application server's answer is not usable.\n";
    case 503: return "503 Service Unavailable\nThe application server cannot be reached.\n";
    case 504: return "504 Gateway Timeout\nThe application server did not answer in time.\n";
    default: return "500 Internal Server Error\nThe way to the application server is not set up.\n";
    }
}

static void answer(int status)
{
    const char *page = page_for(status);
    int length = (int)strcspn(page, "\n");
    char text[512];
    int size = snprintf(text, sizeof text,
                        "Status: %.*s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n\r\n%s",
                        length, page, strlen(page), request.is_head ? "" : page);
    for (int sent = 0; sent < size;) {
        ssize_t count = write(STDOUT_FILENO, text + sent, (size_t)(size - sent));
        if (count < 0 && errno != EINTR)
            return; /* the web server has gone */
        sent += count < 0 ? 0 : (int)count;
    }
}

/* End without a whole answer of the server's, and say why. If nothing has gone out there is still a truthful status to
 * give; else it ends here and now, unread bytes or not: no client should take that for the answer's end. */
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static _Noreturn void refuse(int status, const char *format, ...)
{
    char reason[3 * LINE_LIMIT];
    va_list values;
    va_start(values, format);
    vsnprintf(reason, sizeof reason, format, values);
    va_end(values);
    if (request.begun) {
        dprintf(STDERR_FILENO, "cgi2scgi: an answer broke off: %s\n", reason);
        exit(EXIT_FAILURE);
    }
    dprintf(STDERR_FILENO, "cgi2scgi: %d: %s\n", status, reason);
    answer(status);
    leave();
}

/* -- settings ------------------------------------------------------------------------------------------------------ */

/* Digits and nothing else; -1 for what is not, or is more than that. */
static int64_t whole_number(const char *text, int64_t most)
{
    int64_t number = 0;
    if (*text == '\0')
        return -1;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        int digit = *text - '0';
        if (number > (most - digit) / 10)
            return -1;
        number = number * 10 + digit;
    }
    return number;
}

static void set_text(char *setting, const char *value, const char *where)
{
    if (strlen(value) >= LINE_LIMIT)
        refuse(500, "%s: more than %d bytes", where, LINE_LIMIT - 1);
    strcpy(setting, value);
}

static void set_time(int64_t *setting, const char *value, const char *where)
{
    int64_t seconds = whole_number(value, MOST_SECONDS);
    if (seconds < 1)
        refuse(500, "%s: expected a whole number of seconds, 1 to %d", where, MOST_SECONDS);
    *setting = seconds * 1000;
}

static void set(const char *name, const char *value, const char *where)
{
    if (strcmp(name, "server") == 0)
        set_text(settings.server, value, where);
    else if (strcmp(name, "pass") == 0)
        set_text(settings.pass, value, where);
    else if (strcmp(name, "timeout") == 0)
        set_time(&settings.timeout, value, where);
    else if (strcmp(name, "connect-timeout") == 0)
        set_time(&settings.connect_timeout, value, where);
    else
        refuse(500, "%s: expected server, timeout, connect-timeout or pass", where);
}

/* One line: `name value`, a comment, or nothing. `#!program address` is a comment that names the server. */
static void read_line(char *line, const char *path, int number)
{
    char where[LINE_LIMIT];
    snprintf(where, sizeof where, "%.900s:%d", path, number);
    if (strchr(line, '\n') == NULL && strlen(line) == LINE_LIMIT - 1)
        refuse(500, "%s: more than %d bytes in the line", where, LINE_LIMIT - 2);
    bool interpreter = number == 1 && strncmp(line, "#!", 2) == 0;
    char *name = line + strspn(line, " \t\r\n");
    if (interpreter)
        name = line + 2 + strspn(line + 2, " \t");
    else if (*name == '#' || *name == '\0')
        return;
    char *value = name + strcspn(name, " \t\r\n");
    if (*value != '\0')
        *value++ = '\0';
    value += strspn(value, " \t\r\n");
    size_t length = strlen(value);
    while (length > 0 && isspace((unsigned char)value[length - 1]))
        value[--length] = '\0';
    if (!interpreter)
        set(name, value, where);
    else if (*value != '\0')
        set("server", value, where);
}

/* Whether there is such a file; all that is in it counts. One that anybody may write to is refused. */
static bool read_settings(const char *path, bool only_script)
{
    int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat facts;
    char line[LINE_LIMIT], first[2];
    if (file < 0) {
        if (only_script || errno == ENOENT || errno == ENOTDIR)
            return false; /* a program that can be run need not be readable */
        refuse(500, "cannot read %.900s: %s", path, strerror(errno));
    }
    if (fstat(file, &facts) < 0 || !S_ISREG(facts.st_mode)) {
        if (!only_script)
            refuse(500, "%.900s is not a file", path);
        close(file);
        return false;
    }
    if (only_script && (pread(file, first, 2, 0) != 2 || memcmp(first, "#!", 2) != 0)) {
        close(file);
        return false;
    }
    if (facts.st_mode & S_IWOTH)
        refuse(500, "%.900s: everybody may write to it (chmod o-w)", path);
    FILE *lines = fdopen(file, "r");
    if (lines == NULL)
        refuse(500, "cannot read %.900s: %s", path, strerror(errno));
    for (int number = 1; fgets(line, sizeof line, lines) != NULL; number++)
        read_line(line, path, number);
    fclose(lines);
    return true;
}

/* The name that the system ran: a script that begins with `#!` and this program's name, or a name of this program. No
 * request has a part in it; SCRIPT_FILENAME, which some web servers make of the URL, is not asked. */
static const char *name_of_program(const char *called)
{
#ifdef __linux__
    const char *executed = (const char *)(uintptr_t)getauxval(AT_EXECFN); /* as execve() had it */
    if (executed != NULL && *executed != '\0')
        return executed;
#endif
    return called;
}

static void read_file(const char *called)
{
    const char *program = name_of_program(called);
    char path[PATH_MAX];
    if (program == NULL || *program == '\0' || read_settings(program, true))
        return;
    if (snprintf(path, sizeof path, "%s.conf", program) < (int)sizeof path)
        read_settings(path, false);
}

static void read_environment(void)
{
    static const char *const names[][2] = {
        {"SCGI_SERVER", "server"},
        {"SCGI_PASS", "pass"},
        {"SCGI_TIMEOUT", "timeout"},
        {"SCGI_CONNECT_TIMEOUT", "connect-timeout"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i][0]);
        if (value != NULL && *value != '\0')
            set(names[i][1], value, names[i][0]);
    }
}

/* -- the way to the server ----------------------------------------------------------------------------------------- */

static int open_socket(int family)
{
    int sock = socket(family, SOCK_STREAM, 0);
    if (sock < 0)
        refuse(503, "no socket: %s", strerror(errno));
    fcntl(sock, F_SETFD, FD_CLOEXEC);
    fcntl(sock, F_SETFL, O_NONBLOCK);
    return sock;
}

/* 0 once the socket is connected, else the error. */
static int connect_until(int sock, const struct sockaddr *address, socklen_t size, int64_t deadline)
{
    struct pollfd out = {.fd = sock, .events = POLLOUT};
    int ready, error = 0;
    socklen_t length = sizeof error;
    while (connect(sock, address, size) < 0) {
        if (errno == EAGAIN && address->sa_family == AF_UNIX) { /* its queue is full */
            if (now() >= deadline)
                return ETIMEDOUT;
            poll(NULL, 0, FULL_QUEUE);
            continue;
        }
        if (errno != EINPROGRESS && errno != EINTR)
            return errno;
        while ((ready = poll(&out, 1, until(deadline))) < 0 && errno == EINTR)
            ;
        if (ready == 0)
            return ETIMEDOUT;
        return getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? errno : error;
    }
    return 0;
}

static int connect_unix(const char *path, int64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (*path == '\0' || strlen(path) >= sizeof address.sun_path)
        refuse(500, "server: a unix socket's path has 1 to %zu bytes", sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);
    int sock = open_socket(AF_UNIX);
    int error = connect_until(sock, (struct sockaddr *)&address, sizeof address, deadline);
    if (error != 0)
        refuse(503, "cannot connect to %s: %s", settings.server, strerror(error));
    return sock;
}

static int connect_tcp(const char *host, const char *port, int64_t deadline)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int wrong = getaddrinfo(host, port, &hints, &found);
    if (wrong != 0)
        refuse(503, "cannot connect to %s: %s", settings.server, gai_strerror(wrong));
    int error = 0, yes = 1;
    for (struct addrinfo *one = found; one != NULL; one = one->ai_next) {
        int sock = open_socket(one->ai_family);
        error = connect_until(sock, one->ai_addr, one->ai_addrlen, deadline);
        if (error == 0) {
            setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            freeaddrinfo(found);
            return sock;
        }
        close(sock);
    }
    freeaddrinfo(found);
    refuse(503, "cannot connect to %s: %s", settings.server, strerror(error));
}

/* The addresses of docs/reference/addresses.md: 4000, :4000, host:4000, [::1]:4000, unix:/path, /path. */
static int connect_to_server(void)
{
    int64_t deadline = now() + settings.connect_timeout;
    char text[LINE_LIMIT];
    strcpy(text, settings.server);
    if (strncmp(text, "unix:", 5) == 0)
        return connect_unix(text + 5, deadline);
    if (strchr(text, '/') != NULL)
        return connect_unix(text, deadline);

    char *colon = strrchr(text, ':');
    char *port = colon == NULL ? text : colon + 1, *host = colon == NULL ? "" : text;
    if (colon != NULL)
        *colon = '\0';
    size_t length = strlen(host);
    bool bracketed = length > 2 && host[0] == '[' && host[length - 1] == ']';
    if (bracketed) {
        host[length - 1] = '\0';
        host++;
    }
    if (whole_number(port, 65535) < 1 || (!bracketed && strpbrk(host, ":[]") != NULL))
        refuse(500, "server: expected a port (4000), HOST:PORT, [IPV6]:PORT, unix:PATH or a path");
    return connect_tcp(*host == '\0' ? "127.0.0.1" : host, port, deadline);
}

/* -- the request's head -------------------------------------------------------------------------------------------- */

/* What web servers say about a request: RFC 3875, and what they add to it. All else is the process's own environment,
 * and no business of the application's. */
static const char *const PASSED[] = {
    "AUTH_TYPE",      "CONTENT_TYPE",    "CONTEXT_*",      "DOCUMENT_*",  "GATEWAY_INTERFACE", "HTTP2",
    "HTTPS",          "HTTP_*",          "PATH_INFO",      "PATH_TRANSLATED", "QUERY_STRING",  "REMOTE_ADDR",
    "REMOTE_HOST",    "REMOTE_IDENT",    "REMOTE_PORT",    "REMOTE_USER", "REQUEST_METHOD",    "REQUEST_SCHEME",
    "REQUEST_URI",    "SCRIPT_FILENAME", "SCRIPT_NAME",    "SCRIPT_URI",  "SCRIPT_URL",        "SERVER_*",
    "SSL_*",          "UNIQUE_ID",
};

/* Of those, what is never sent: HTTP_PROXY would be taken for a setting ("httpoxy"); the two CONTENT headers have
 * variables of their own; the files are settings of OpenSSL's. */
static const char *const KEPT[] = {
    "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE",
};

/* An internal redirect: what the first request had, under a name of its own, and what only a redirect has. */
static const char REDIRECT[] = "REDIRECT_";
static const char *const OF_REDIRECT[] = {"ERROR_NOTES", "HANDLER", "STATUS", "URI", "URL"};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static bool matches(const char *name, size_t length, const char *pattern, size_t size)
{
    if (size > 1 && pattern[size - 1] == '*')
        return length >= size && strncmp(name, pattern, size - 1) == 0;
    return length == size && strncmp(name, pattern, size) == 0;
}

static bool is_in(const char *const *table, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (matches(name, length, table[i], strlen(table[i])))
            return true;
    return false;
}

static bool asked_for(const char *name, size_t length)
{
    for (const char *word = settings.pass; *(word += strspn(word, " \t,")) != '\0';) {
        size_t size = strcspn(word, " \t,");
        if (matches(name, length, word, size))
            return true;
        word += size;
    }
    return false;
}

static bool is_sent(const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return false;
    if (matches(name, length, "CONTENT_LENGTH", 14) || matches(name, length, "SCGI", 4))
        return false; /* they stand first */
    const size_t skip = sizeof REDIRECT - 1;
    bool redirected = false;
    const char *rest = name;
    size_t left = length;
    for (; left > skip && strncmp(rest, REDIRECT, skip) == 0; redirected = true) {
        rest += skip;
        left -= skip;
    }
    if (is_in(KEPT, COUNT(KEPT), rest, left))
        return false;
    return is_in(PASSED, COUNT(PASSED), rest, left) || (redirected && is_in(OF_REDIRECT, COUNT(OF_REDIRECT), rest, left))
           || asked_for(name, length);
}

/* By name, and by place where a name is there twice. */
static int by_name(const void *one, const void *other)
{
    char *const *a = *(char *const *const *)one, *const *b = *(char *const *const *)other;
    size_t length = strcspn(*a, "="), size = strcspn(*b, "=");
    int order = strncmp(*a, *b, length < size ? length : size);
    if (order == 0)
        order = (length > size) - (length < size);
    return order != 0 ? order : (a > b) - (a < b);
}

struct block {
    char *at; /* NULL: it is only measured */
    size_t length;
};

static void emit(struct block *block, const char *name, size_t length, const char *value)
{
    size_t size = strlen(value);
    if (block->at != NULL) {
        memcpy(block->at + block->length, name, length);
        block->at[block->length + length] = '\0';
        memcpy(block->at + block->length + length + 1, value, size + 1);
    }
    block->length += length + size + 2;
}

static void walk(struct block *block, char ***variables, size_t count, const char *body_length)
{
    emit(block, "CONTENT_LENGTH", 14, body_length);
    emit(block, "SCGI", 4, "1");
    size_t last = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = *variables[i];
        size_t length = strcspn(name, "=");
        if (length == 0 || name[length] != '=' || !is_sent(name, length))
            continue;
        if (i > last && strncmp(name, *variables[last], length + 1) == 0)
            continue; /* there already: the first counts, as with getenv() */
        emit(block, name, length, name + length + 1);
        last = i;
    }
}

/* The netstring; measured first, then filled. */
static struct block request_head(void)
{
    char body_length[24], digits[24];
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char ***variables = malloc((count + 1) * sizeof *variables);
    if (variables == NULL)
        refuse(500, "no memory");
    for (size_t i = 0; i < count; i++)
        variables[i] = &environ[i];
    qsort(variables, count, sizeof *variables, by_name);

    snprintf(body_length, sizeof body_length, "%lld", (long long)request.body_length);
    struct block measured = {NULL, 0};
    walk(&measured, variables, count, body_length);
    size_t prefix = (size_t)snprintf(digits, sizeof digits, "%zu:", measured.length);
    struct block filled = {malloc(prefix + measured.length + 1), prefix};
    if (filled.at == NULL)
        refuse(500, "no memory");
    memcpy(filled.at, digits, prefix);
    walk(&filled, variables, count, body_length);
    if (filled.length != prefix + measured.length)
        refuse(500, "the variables changed while they were read");
    filled.at[filled.length++] = ',';
    free(variables);
    return filled;
}

/* Judge what is known of the request before anybody is asked. */
static void read_request(void)
{
    const char *method = getenv("REQUEST_METHOD"), *length = getenv("CONTENT_LENGTH");
    request.is_head = method != NULL && strcmp(method, "HEAD") == 0;
    if (length != NULL && *length != '\0') {
        int64_t number = whole_number(length, MOST_BYTES);
        if (number < 0)
            refuse(400, "CONTENT_LENGTH is not a whole number");
        request.body_length = request.body_left = number;
    } else if (getenv("HTTP_TRANSFER_ENCODING") != NULL) {
        refuse(411, "the body is chunked, and the web server did not say how long it is");
    }
}

/* -- the answer's head --------------------------------------------------------------------------------------------- */

static struct {
    char raw[HEAD_LIMIT + 1]; /* as it came, with what came behind it, until it is whole */
    size_t length;
    size_t end; /* where the body begins */

    int status;          /* 0: none said */
    int64_t body_length; /* -1: until end of file */
    bool whole;          /* it has been judged */
} head = {.body_length = -1};

/* They speak of one connection, and that one is the web server's business (RFC 9110, 7.6.1). */
static const char *const HOP_BY_HOP[] = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "trailers", "transfer-encoding", "upgrade",
};

static bool is_token(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && (text[i] == '\0' || strchr("!#$%&'*+-.^_`|~", text[i]) == NULL))
            return false;
    return length > 0;
}

static bool has_control(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (((unsigned char)text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f)
            return true;
    return false;
}

static bool is_named(const char *name, size_t length, const char *wanted)
{
    return length == strlen(wanted) && strncasecmp(name, wanted, length) == 0;
}

static void read_status(const char *value)
{
    int status = 0;
    size_t digits = strspn(value, "0123456789");
    if (digits == 3)
        status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
    if (status < 100 || (value[3] != '\0' && value[3] != ' ' && value[3] != '\t'))
        refuse(502, "the server's answer has a Status that is not three digits");
    if (status < 200)
        refuse(502, "the server's answer has the Status %d, which is not a final one", status);
    head.status = status;
}

static void read_length(const char *value)
{
    int64_t length = whole_number(value, MOST_BYTES);
    if (length < 0)
        refuse(502, "the server's answer has a Content-Length that is not a whole number");
    if (head.body_length >= 0 && head.body_length != length)
        refuse(502, "the server's answer has two Content-Lengths, and they differ");
    head.body_length = length;
}

/* Judge one line and write it, as the web server shall have it, to `out`; returns its length there. */
static size_t take_line(char *line, size_t length, bool first, char *out)
{
    if (has_control(line, length))
        refuse(502, "the server's answer has a control character in its head");
    line[length] = '\0';
    if (first && strncmp(line, "HTTP/", 5) == 0) { /* a status line of HTTP's own */
        const char *value = line + 5 + strspn(line + 5, "0123456789.");
        value += strspn(value, " ");
        read_status(value);
        return (size_t)sprintf(out, "Status: %s\r\n", value);
    }
    char *colon = strchr(line, ':');
    if (colon == NULL)
        refuse(502, "the server's answer has a line in its head that is no header");
    size_t name = (size_t)(colon - line);
    if (!is_token(line, name))
        refuse(502, "the server's answer has a header whose name is none");
    char *value = colon + 1 + strspn(colon + 1, " \t");
    for (size_t left = strlen(value); left > 0 && (value[left - 1] == ' ' || value[left - 1] == '\t'); left--)
        value[left - 1] = '\0';
    for (size_t i = 0; i < COUNT(HOP_BY_HOP); i++)
        if (is_named(line, name, HOP_BY_HOP[i]))
            return 0;
    if (is_named(line, name, "status"))
        read_status(value);
    if (is_named(line, name, "content-length")) {
        read_length(value);
        return 0; /* written once, at the end */
    }
    return (size_t)sprintf(out, "%.*s: %s\r\n", (int)name, line, value);
}

/* Where the head ends; 0: not yet. `from` is how far it was searched before. */
static size_t find_end(size_t from)
{
    for (size_t i = from > 2 ? from - 2 : 0; i < head.length; i++) {
        if (head.raw[i] != '\n')
            continue;
        if (i + 1 < head.length && head.raw[i + 1] == '\n')
            return i + 2;
        if (i + 2 < head.length && head.raw[i + 1] == '\r' && head.raw[i + 2] == '\n')
            return i + 3;
    }
    return 0;
}

/* Take bytes of the head in. Once it is whole it is judged, and written as the web server shall have it. Returns the
 * length of what was written; 0: it is not whole yet. */
static size_t take_head(size_t count, char *out)
{
    size_t from = head.length, written = 0;
    head.length += count;
    if (head.raw[0] == '\n' || (head.length > 1 && head.raw[0] == '\r' && head.raw[1] == '\n'))
        refuse(502, "the server's answer begins with a blank line: it has no head");
    head.end = find_end(from);
    if (head.end == 0) {
        if (head.length >= HEAD_LIMIT)
            refuse(502, "the server's answer has a head of more than %d bytes", HEAD_LIMIT);
        if (memchr(head.raw + from, '\0', count) != NULL)
            refuse(502, "the server's answer has a control character in its head");
        return 0;
    }
    for (size_t start = 0, length; start < head.end; start += length + 1) {
        char *line = head.raw + start;
        length = (size_t)((char *)memchr(line, '\n', head.end - start) - line);
        size_t text = length > 0 && line[length - 1] == '\r' ? length - 1 : length;
        if (text > 0)
            written += take_line(line, text, start == 0, out + written);
    }
    head.whole = true;
    if (head.body_length >= 0 && head.status != 204)
        written += (size_t)sprintf(out + written, "Content-Length: %lld\r\n", (long long)head.body_length);
    if (request.is_head || head.status == 204 || head.status == 304)
        head.body_length = 0; /* what they announce is what a GET would bring */
    memcpy(out + written, "\r\n", 2);
    return written + 2;
}

/* -- both ways at once --------------------------------------------------------------------------------------------- */

static struct {
    char *up; /* what the server is to be sent next */
    size_t up_left;
    char body[CHUNK];
    bool reads;     /* the server still does */
    bool was_reset; /* sending found that out, and took the error away from receiving */

    char down[3 * HEAD_LIMIT]; /* what the web server is to be given; a head grows when its lines get a CR */
    size_t down_from, down_to;
    int64_t received; /* bytes of the answer's body */
    bool whole;       /* all of the answer is here */

    int64_t moved; /* when a byte last moved; of an answer's head, the first */
} relay = {.reads = true};

static int64_t answer_left(void)
{
    return head.body_length - relay.received;
}

/* Account for bytes of the answer's body that have been put where they are to be sent from. */
static void take_answer(size_t count)
{
    if (head.body_length >= 0 && (int64_t)count > answer_left())
        count = (size_t)answer_left(); /* what follows is not part of it */
    relay.down_to += count;
    relay.received += (int64_t)count;
    relay.whole = relay.received == head.body_length;
}

/* A small answer of known length goes out once it is whole: until then it can still become a 502. */
static bool is_held_back(void)
{
    return !relay.whole && head.body_length >= 0
           && answer_left() <= (int64_t)(sizeof relay.down - relay.down_to) && !request.begun;
}

static void give_up_sending(void)
{
    relay.reads = false;
    relay.up_left = 0;
}

static void send_up(void)
{
    ssize_t count = write(server, relay.up, relay.up_left);
    if (count >= 0) {
        relay.up += count;
        relay.up_left -= (size_t)count;
        relay.moved = now();
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        relay.was_reset = errno == ECONNRESET;
        give_up_sending(); /* it reads no more; its answer may be there already */
    }
}

/* More of the body, to be sent, or to be dropped: a web server that is held up may not read the answer either. */
static void take_body(void)
{
    size_t wanted = request.body_left < CHUNK ? (size_t)request.body_left : CHUNK;
    ssize_t count = read(STDIN_FILENO, relay.body, wanted);
    if (count < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (count <= 0) {
        int64_t came = request.body_length - request.body_left;
        request.body_left = 0;
        if (relay.reads && !relay.whole)
            refuse(400, "the request body ended after %lld of %lld bytes", (long long)came,
                   (long long)request.body_length);
        return;
    }
    request.body_left -= count;
    if (relay.reads) {
        relay.up = relay.body;
        relay.up_left = (size_t)count;
        relay.moved = now();
    }
}

/* The server closed, or the connection was reset. */
static void end_answer(bool reset)
{
    if (!head.whole) {
        if (reset)
            refuse(502, "the server reset the connection without answering");
        if (head.length == 0)
            refuse(502, "the server closed the connection without answering");
        refuse(502, "the server closed the connection within the answer's head");
    }
    if (head.body_length >= 0)
        refuse(502, "the server ended it after %lld of %lld bytes", (long long)relay.received,
               (long long)head.body_length);
    /* Closing on unread bytes is a reset, and that is how many servers turn a body down. */
    if (reset && !(request.body_length > 0 && head.status >= 300))
        refuse(502, "the server reset the connection after %lld bytes", (long long)relay.received);
    relay.whole = true;
}

static void receive(void)
{
    char *to = head.whole ? relay.down + relay.down_to : head.raw + head.length;
    size_t room = head.whole ? sizeof relay.down - relay.down_to : HEAD_LIMIT - head.length;
    ssize_t count = recv(server, to, room, 0);
    if (count < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            end_answer(true);
        return;
    }
    if (count == 0) {
        end_answer(relay.was_reset);
        return;
    }
    if (head.whole || head.length == 0)
        relay.moved = now(); /* a head that drips does not stop the clock */
    if (head.whole) {
        take_answer((size_t)count);
        return;
    }
    relay.down_to = take_head((size_t)count, relay.down);
    if (head.whole) {
        size_t rest = head.length - head.end;
        memcpy(relay.down + relay.down_to, head.raw + head.end, rest);
        take_answer(rest);
    }
}

/* As much as is sure not to block: the descriptor may be somebody else's too, so its flags are not ours to change. */
static void give_answer(void)
{
    size_t ready = relay.down_to - relay.down_from;
    ssize_t count = write(STDOUT_FILENO, relay.down + relay.down_from, ready < PIPE_BUF ? ready : PIPE_BUF);
    if (count < 0) {
        if (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        exit(EXIT_SUCCESS); /* the web server has gone: nobody is there to be told */
    }
    request.begun = true;
    relay.moved = now();
    relay.down_from += (size_t)count;
    if (relay.down_from == relay.down_to)
        relay.down_from = relay.down_to = 0;
}

static _Noreturn void time_out(void)
{
    if (request.body_left > 0 && relay.reads && relay.up_left == 0)
        refuse(408, "the web server gave no more of the request body for %lld s", (long long)settings.timeout / 1000);
    refuse(504, "%s did not go on within %lld s", settings.server, (long long)settings.timeout / 1000);
}

static void run_relay(void)
{
    enum { IN, OUT, SERVER };
    relay.moved = now();
    while (!relay.whole || relay.down_to > 0) {
        bool giving = relay.down_to > 0 && !is_held_back();
        bool taking = request.body_left > 0 && relay.up_left == 0;
        bool room = head.whole ? relay.down_to == 0 || is_held_back() : true;
        struct pollfd about[] = {
            [IN] = {.fd = taking ? STDIN_FILENO : -1, .events = POLLIN},
            [OUT] = {.fd = STDOUT_FILENO, .events = giving ? POLLOUT : 0},
            [SERVER] = {.fd = server},
        };
        if (!relay.whole && room)
            about[SERVER].events |= POLLIN;
        if (relay.up_left > 0)
            about[SERVER].events |= POLLOUT;
        if (about[SERVER].events == 0)
            about[SERVER].fd = -1; /* or its hanging up would wake us for nothing */

        /* A client that reads slowly is the web server's business; all else has its time. */
        bool patient = giving && (relay.whole || (request.body_left == 0 && relay.up_left == 0));
        int ready = poll(about, 3, patient ? -1 : until(relay.moved + settings.timeout));
        if (ready < 0 && errno != EINTR)
            refuse(500, "poll: %s", strerror(errno));
        if (ready == 0 && now() >= relay.moved + settings.timeout)
            time_out();
        if (ready <= 0)
            continue;
        if (about[OUT].revents & (POLLERR | POLLHUP | POLLNVAL))
            exit(EXIT_SUCCESS); /* the web server has gone */
        if (about[OUT].revents & POLLOUT)
            give_answer();
        if (about[SERVER].revents != 0 && about[SERVER].events & POLLIN)
            receive(); /* before sending, which may find that the connection was reset */
        if (about[SERVER].revents != 0 && relay.up_left > 0)
            send_up();
        if (about[IN].revents != 0)
            take_body();
        if (relay.whole)
            give_up_sending();
    }
}

/* -- from beginning to end ----------------------------------------------------------------------------------------- */

/* A socket must not become somebody's standard output. */
static void fill_standard_descriptors(void)
{
    int file;
    do {
        file = open("/dev/null", O_RDWR);
    } while (file >= 0 && file <= STDERR_FILENO);
    if (file >= 0)
        close(file);
}

static const char USAGE[] =
    "cgi2scgi answers CGI requests by asking an SCGI server. Web servers run it; by hand:\n"
    "    REQUEST_METHOD=GET SCRIPT_NAME= PATH_INFO=/ cgi2scgi 127.0.0.1:4000\n"
    "Below a web server, SCGI_SERVER or the file PROGRAM.conf names the server (\"server 127.0.0.1:4000\").\n";

int main(int argc, char **argv)
{
    bool by_hand = getenv("GATEWAY_INTERFACE") == NULL;
    fill_standard_descriptors();
    signal(SIGPIPE, SIG_IGN);
    if (by_hand && (getenv("REQUEST_METHOD") == NULL || argc > 2)) {
        fputs(USAGE, stderr);
        return 2;
    }
    read_request();
    read_file(argc > 0 ? argv[0] : NULL);
    read_environment();
    if (by_hand && argc == 2)
        set("server", argv[1], "argument");
    if (settings.server[0] == '\0')
        refuse(500, "no server is named: set SCGI_SERVER, or write \"server ADDRESS\" to %.900s.conf (arguments do not "
               "count here, since they may come from a query)", name_of_program(argc > 0 ? argv[0] : "cgi2scgi"));

    static struct block first;
    first = request_head();
    relay.up = first.at;
    relay.up_left = first.length;
    server = connect_to_server();
    run_relay();
    leave();
}
