/* The load of `make bench`: asks as fast as answers come, and looks at every one of them.

       client [OPTIONS] <<< "ADDRESS SECONDS SEED"

   For each line of standard input it loads the server at ADDRESS for so many seconds; with 0 every client asks once.
   ADDRESS is the path of a unix socket, or HOST:PORT with a numeric host. It stays until its input ends, since starting
   a program for each slice would take longer than a slice.
   It speaks SCGI, one connection per request, or with --http HTTP/1.1 on connections that are kept. Requests differ
   from one another in port, query and cookie: a server that remembers answers gains nothing by it.

       --clients N         processes, each with one request at a time [4]
       --connections N     more than 1: each process has so many requests under way, by epoll; SCGI without a body [1]
       --http              HTTP/1.1 instead of SCGI
       --apache            the 40 variables of Apache instead of a browser's 24 behind nginx
       --path PATH         what is asked for [/shop/item]
       --body BYTES        how much to send [0]
       --length BYTES      how long the answer's body has to be [13]
       --tail TEXT         how it has to end ["Hello, world\n"]
       --slow-every N      each Nth request goes to the slow path, and into a histogram of its own [0: none]
       --slow-path PATH    that path [/slow]

   Prints a JSON object for each line: requests answered, seconds, how often it waited because the server's queue was
   full, and how many answers took how many nanoseconds, to 3 %. After a wrong answer, or none within two minutes, it is
   {"wrong": "..."}.

   It is C because web servers are: a client in Python would be the bottleneck, and push the servers under test out of
   the processor's caches. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 8192, CHUNK = 256 * 1024, TAIL = 64, STEPS = 32, BUCKETS = 64 * STEPS };

static const int PATIENCE = 120; /* seconds beyond those of the slice, then the kernel ends a client */

static struct sockaddr_storage where;
static socklen_t where_size;
static double seconds;
static unsigned long seed;
static int clients = 4, connections = 1, http, apache;
static const char *path = "/shop/item", *slow_path = "/slow", *tail = "Hello, world\n";
static unsigned long slow_every;
static long long body, length = 13;

/* What each process writes into memory that it shares with the first one. */
static struct tally {
    unsigned long requests, waited, latency[2][BUCKETS]; /* 1: of the slow path */
    double began, ended;
    char wrong[400];
} *mine;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* The process has seen something wrong: say what, and end. */
__attribute__((format(printf, 1, 2), noreturn)) static void wrong(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(mine->wrong, sizeof mine->wrong, format, values);
    _exit(1);
}

/* -- Latencies: 32 buckets for each power of two of nanoseconds ----------------------------------------------------- */

static int bucket(unsigned long ns)
{
    if (ns < STEPS)
        return ns;
    int power = 63 - __builtin_clzl(ns);
    return (power - 4) * STEPS + (ns >> (power - 5)) % STEPS;
}

/* The middle of what falls into it. */
static unsigned long middle(int bucket)
{
    if (bucket < STEPS)
        return bucket;
    int power = bucket / STEPS + 4;
    return (1UL << power) + (2UL * (bucket % STEPS) + 1) * (1UL << (power - 5)) / 2;
}

static void answered(double began, double ended, int slow)
{
    mine->requests++;
    mine->latency[slow][bucket((ended - began) * 1e9)]++;
}

/* -- Requests ------------------------------------------------------------------------------------------------------- */

/* Append NAME\0VALUE\0 to the block. */
static char *put(char *at, const char *name, const char *value)
{
    at = stpcpy(at, name) + 1;
    return stpcpy(at, value) + 1;
}

#define HOST "shop.example"
#define AGENT "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
#define ACCEPT "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
#define LANGUAGE "en-GB,en;q=0.7,de;q=0.3"
#define ENCODING "gzip, deflate, br, zstd"

static int is_slow(unsigned long number)
{
    return slow_every && number % slow_every == 0;
}

/* The head of request `number`; returns its length. */
static int request(char *out, unsigned long number, int slow)
{
    char block[HEAD - 16], query[64], uri[300], port[16], cookie[80], size[24], *at = block;
    const char *to = slow ? slow_path : path, *method = body ? "POST" : "GET";

    snprintf(query, sizeof query, "id=%lu&page=%lu", number, number % 7);
    snprintf(uri, sizeof uri, "%s?%s", to, query);
    snprintf(port, sizeof port, "%lu", 20000 + number % 40000);
    snprintf(cookie, sizeof cookie, "session=%032lx; theme=dark", number * 2654435761UL);
    snprintf(size, sizeof size, "%lld", body);
    if (http)
        return snprintf(out, HEAD,
                        "%s %s HTTP/1.1\r\nHost: " HOST "\r\nUser-Agent: " AGENT "\r\nAccept: " ACCEPT
                        "\r\nAccept-Language: " LANGUAGE "\r\nAccept-Encoding: " ENCODING "\r\nCookie: %s\r\n"
                        "Upgrade-Insecure-Requests: 1\r\nContent-Length: %s\r\n\r\n",
                        method, uri, cookie, size);
    at = put(at, "CONTENT_LENGTH", size);
    at = put(at, "SCGI", "1");
    at = put(at, "REQUEST_METHOD", method);
    at = put(at, "REQUEST_URI", uri);
    at = put(at, "QUERY_STRING", query);
    at = put(at, "CONTENT_TYPE", body ? "application/octet-stream" : "");
    at = put(at, "DOCUMENT_ROOT", "/usr/share/nginx/html");
    at = put(at, "SERVER_PROTOCOL", "HTTP/1.1");
    at = put(at, "REQUEST_SCHEME", "http");
    at = put(at, "REMOTE_ADDR", "127.0.0.1");
    at = put(at, "REMOTE_PORT", port);
    at = put(at, "SERVER_PORT", "80");
    at = put(at, "SERVER_NAME", HOST);
    at = put(at, "SCRIPT_NAME", "");
    at = put(at, "PATH_INFO", to);
    at = put(at, "HTTP_HOST", HOST);
    at = put(at, "HTTP_USER_AGENT", AGENT);
    at = put(at, "HTTP_ACCEPT", ACCEPT);
    at = put(at, "HTTP_ACCEPT_LANGUAGE", LANGUAGE);
    at = put(at, "HTTP_ACCEPT_ENCODING", ENCODING);
    at = put(at, "HTTP_CONNECTION", "keep-alive");
    at = put(at, "HTTP_COOKIE", cookie);
    at = put(at, "HTTP_UPGRADE_INSECURE_REQUESTS", "1");
    if (!apache) {
        at = put(at, "DOCUMENT_URI", to);
    } else {
        at = put(at, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        at = put(at, "SERVER_SIGNATURE", "");
        at = put(at, "SERVER_SOFTWARE", "Apache/2.4.62 (Debian)");
        at = put(at, "SERVER_ADDR", "127.0.0.1");
        at = put(at, "SERVER_ADMIN", "[no address given]");
        at = put(at, "CONTEXT_PREFIX", "");
        at = put(at, "CONTEXT_DOCUMENT_ROOT", "/usr/share/nginx/html");
        at = put(at, "SCRIPT_FILENAME", "proxy:scgi://127.0.0.1:4000/shop/item");
        at = put(at, "GATEWAY_INTERFACE", "CGI/1.1");
        at = put(at, "UNIQUE_ID", "aR8mQn8AAQEAAAN1f9kAAAAB");
        at = put(at, "HTTP_REFERER", "http://" HOST "/shop");
        at = put(at, "HTTP_DNT", "1");
        at = put(at, "HTTP_SEC_FETCH_DEST", "document");
        at = put(at, "HTTP_SEC_FETCH_MODE", "navigate");
        at = put(at, "HTTP_SEC_FETCH_SITE", "same-origin");
        at = put(at, "HTTP_SEC_FETCH_USER", "?1");
        at = put(at, "HTTP_PRIORITY", "u=0, i");
    }

    int start = sprintf(out, "%d:", (int)(at - block));
    memcpy(out + start, block, at - block);
    out[start + (at - block)] = ',';
    return start + (int)(at - block) + 1;
}

/* -- Answers -------------------------------------------------------------------------------------------------------- */

struct answer {
    int head, whole;        /* bytes of the head so far; is it whole? */
    int status;
    long long body, wanted; /* bytes of the body so far; what Content-Length says, or -1 */
    int kept;               /* how much of the body's end is in tail */
    char text[HEAD], tail[2 * TAIL];
};

static void expect(struct answer *a)
{
    a->head = a->whole = a->status = a->kept = 0;
    a->body = 0;
    a->wanted = -1;
}

/* The head is there: its status (200 if it says none), and Content-Length. */
static void read_head(struct answer *a)
{
    char *line;
    a->text[a->head] = 0;
    if (!strncmp(a->text, "HTTP/1.", 7))
        a->status = atoi(a->text + 9);
    else
        a->status = (line = strcasestr(a->text, "Status: ")) ? atoi(line + 8) : 200;
    if ((line = strcasestr(a->text, "\nContent-Length: ")))
        a->wanted = atoll(line + 17);
    else if (http)
        wrong("an answer without Content-Length: %.200s", a->text);
}

static void take(struct answer *a, const char *data, long count)
{
    while (count && !a->whole) {
        if (a->head == HEAD - 1)
            wrong("a response head of more than %d bytes", HEAD);
        a->text[a->head++] = *data++;
        count--;
        if (a->text[a->head - 1] == '\n' && a->head > 1 &&
            (a->text[a->head - 2] == '\n' || (a->head > 3 && !memcmp(a->text + a->head - 4, "\r\n\r\n", 4)))) {
            a->whole = 1;
            read_head(a);
        }
    }
    a->body += count;
    if (count >= TAIL) {
        memcpy(a->tail, data + count - TAIL, a->kept = TAIL);
    } else {
        memcpy(a->tail + a->kept, data, count);
        a->kept += count;
        if (a->kept > TAIL)
            memmove(a->tail, a->tail + a->kept - TAIL, TAIL), a->kept = TAIL;
    }
}

static void check(struct answer *a)
{
    int size = strlen(tail);
    if (!a->whole || a->status != 200 || a->body != length || a->kept < size ||
        memcmp(a->tail + a->kept - size, tail, size))
        wrong("a wrong answer: status %d with %lld bytes, instead of 200 with %lld; it ends in \"%.*s\"", a->status,
              a->body, length, a->kept, a->tail);
}

/* -- One request at a time ------------------------------------------------------------------------------------------ */

static int connected(void)
{
    for (;;) {
        int one = 1, sock = socket(where.ss_family, SOCK_STREAM, 0);
        if (where.ss_family == AF_INET)
            setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!connect(sock, (struct sockaddr *)&where, where_size))
            return sock;
        close(sock);
        if (errno != EAGAIN) /* which means that the queue of a unix socket is full */
            wrong("cannot connect: %s", strerror(errno));
        mine->waited++;
        usleep(100);
    }
}

/* Send head and body; 0 if the connection is gone. A server may answer before it has read everything. */
static int sent(int sock, const char *head, int size, const char *data)
{
    for (int done = 0; done < size;) {
        int count = send(sock, head + done, size - done, MSG_NOSIGNAL | (body ? MSG_MORE : 0));
        if (count < 0)
            return 0;
        done += count;
    }
    for (long long left = body; left;) {
        long count = send(sock, data, left < CHUNK ? left : CHUNK, MSG_NOSIGNAL);
        if (count < 0)
            return 0;
        left -= count;
    }
    return 1;
}

static void one_at_a_time(unsigned long number)
{
    static char head[HEAD], payload[CHUNK], data[CHUNK];
    static struct answer answer, *a = &answer;
    int sock = -1;
    double end = mine->began + seconds, began = mine->began;

    memset(payload, 'x', CHUNK);
    do {
        int fresh = sock < 0, slow = is_slow(++number);
        int size = request(head, number, slow);
        long count = 0;
        if (fresh)
            sock = connected();
        int gone = !sent(sock, head, size, payload);
        expect(a);
        while (!(http && a->whole && a->body >= a->wanted) && (count = read(sock, data, CHUNK)) > 0)
            take(a, data, count);
        if (!http || count <= 0) {
            close(sock);
            sock = -1;
            if (http && !fresh && !a->head)
                continue; /* the server had enough of this connection: ask again on another */
        }
        if (!a->head)
            wrong("no answer: %s", count < 0 ? strerror(errno) : gone ? "the connection broke" : "the connection ended");
        check(a);
        double ended = now();
        answered(began, ended, slow);
        began = ended;
    } while (began < end);
}

/* -- Many at a time ------------------------------------------------------------------------------------------------- */

struct asking {
    int sock, sending;
    unsigned long number;
    double began;
    struct answer answer;
};

static void send_head(struct asking *one)
{
    static char head[HEAD];
    int size = request(head, one->number, is_slow(one->number));
    if (send(one->sock, head, size, MSG_NOSIGNAL) != size)
        wrong("cannot send: %s", strerror(errno));
    one->sending = 0;
}

/* Begin a request, as nginx does: what can be sent at once is. 0 if the server's queue is full. */
static int begin(int poll, struct asking *one, unsigned long number)
{
    struct epoll_event event = {.data.ptr = one};
    int on = 1, sock = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (sock < 0)
        wrong("no socket: %s", strerror(errno));
    if (where.ss_family == AF_INET)
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    one->sock = sock;
    one->number = number;
    one->sending = connect(sock, (struct sockaddr *)&where, where_size) != 0;
    expect(&one->answer);
    if (!one->sending) {
        send_head(one);
    } else if (errno != EINPROGRESS) {
        if (errno != EAGAIN)
            wrong("cannot connect: %s", strerror(errno));
        close(sock);
        mine->waited++;
        return 0;
    }
    event.events = one->sending ? EPOLLOUT : EPOLLIN;
    epoll_ctl(poll, EPOLL_CTL_ADD, sock, &event);
    return 1;
}

static void many_at_a_time(unsigned long number)
{
    static char data[CHUNK];
    struct asking *all = calloc(connections, sizeof *all), **waiting = calloc(connections, sizeof *waiting);
    struct epoll_event ready[256];
    int poll = epoll_create1(0), first = 0, queue = 0, under_way = 0; /* the queue goes round in `waiting` */
    double end = mine->began + seconds;

    for (int i = 0; i < connections; i++) {
        all[i].began = mine->began;
        waiting[queue++] = &all[i];
    }
    while (queue || under_way) {
        for (; queue && begin(poll, waiting[first], number + 1); queue--) {
            first = (first + 1) % connections;
            under_way++;
            number++;
        }
        int count = epoll_wait(poll, ready, 256, queue ? 1 : 1000);
        for (int i = 0; i < count; i++) {
            struct asking *one = ready[i].data.ptr;
            if (one->sending) {
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
                send_head(one);
                epoll_ctl(poll, EPOLL_CTL_MOD, one->sock, &event);
                continue;
            }
            long got = read(one->sock, data, CHUNK);
            if (got > 0) {
                take(&one->answer, data, got);
                continue;
            }
            if (got < 0)
                wrong("no answer: %s", strerror(errno));
            check(&one->answer);
            close(one->sock);
            double ended = now();
            answered(one->began, ended, is_slow(one->number));
            under_way--;
            if (ended < end) {
                one->began = ended;
                waiting[(first + queue++) % connections] = one;
            }
        }
        if (now() > end)
            queue = 0;
    }
}

/* ------------------------------------------------------------------------------------------------------------------- */

/* Fill in `where`; 0 if it is no address. */
static int find(const char *address)
{
    memset(&where, 0, sizeof where);
    if (strchr(address, '/')) {
        struct sockaddr_un *un = (struct sockaddr_un *)&where;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "%s", address);
        where_size = sizeof *un;
        return 1;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)&where;
    const char *colon = strrchr(address, ':');
    char host[64] = "";
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - address) : 0, address);
    in->sin_family = AF_INET;
    in->sin_port = htons(colon ? atoi(colon + 1) : 0);
    where_size = sizeof *in;
    return colon && inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

static void print(const char *name, const struct tally *sum, int slow)
{
    const char *between = "";
    printf(", \"%s\": [", name);
    for (int i = 0; i < BUCKETS; i++)
        if (sum->latency[slow][i]) {
            printf("%s[%lu, %lu]", between, middle(i), sum->latency[slow][i]);
            between = ", ";
        }
    printf("]");
}

/* A JSON string of what was wrong: an answer may hold anything. */
static void print_wrong(const char *text)
{
    printf("{\"wrong\": \"");
    for (; *text; text++)
        if (*text == '\n' || *text == '\r')
            putchar(' ');
        else
            putchar(*text < ' ' || *text > '~' || *text == '"' || *text == '\\' ? '?' : *text);
    printf("\"}\n");
}

/* One slice: a process for each client, and their figures added up. */
static void slice(struct tally *all)
{
    static struct tally sum;
    int parent = getpid();

    memset(&sum, 0, sizeof sum);
    memset(all, 0, clients * sizeof *all);
    sum.began = 1e18;
    for (int i = 0; i < clients; i++)
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(1);
            alarm(seconds + PATIENCE);
            mine = &all[i];
            mine->began = now();
            (connections > 1 ? many_at_a_time : one_at_a_time)(seed + i * 10000019UL); /* not all slow at once */
            mine->ended = now();
            _exit(0);
        }
    for (int i = 0, status; i < clients; i++)
        if (wait(&status) > 0 && WIFSIGNALED(status))
            snprintf(sum.wrong, sizeof sum.wrong, WTERMSIG(status) == SIGALRM ? "no answer within %d s" :
                     "a client was ended by signal %d", WTERMSIG(status) == SIGALRM ? PATIENCE : WTERMSIG(status));
    for (int i = 0; i < clients; i++) {
        if (all[i].wrong[0])
            memcpy(sum.wrong, all[i].wrong, sizeof sum.wrong);
        sum.requests += all[i].requests;
        sum.waited += all[i].waited;
        sum.began = all[i].began < sum.began ? all[i].began : sum.began;
        sum.ended = all[i].ended > sum.ended ? all[i].ended : sum.ended;
        for (int slow = 0; slow < 2; slow++)
            for (int place = 0; place < BUCKETS; place++)
                sum.latency[slow][place] += all[i].latency[slow][place];
    }
    if (sum.wrong[0]) {
        print_wrong(sum.wrong);
        return;
    }
    printf("{\"requests\": %lu, \"waited\": %lu, \"seconds\": %.6f", sum.requests, sum.waited, sum.ended - sum.began);
    print("latency_ns", &sum, 0);
    print("slow_ns", &sum, 1);
    printf("}\n");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"clients", 1, 0, 'c'},   {"connections", 1, 0, 'n'}, {"http", 0, 0, 'h'},       {"apache", 0, 0, 'a'},
        {"path", 1, 0, 'p'},      {"body", 1, 0, 'b'},        {"length", 1, 0, 'l'},     {"tail", 1, 0, 't'},
        {"slow-every", 1, 0, 's'}, {"slow-path", 1, 0, 'S'},  {0},
    };
    char line[400], address[200];

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'c': clients = atoi(optarg); break;
        case 'n': connections = atoi(optarg); break;
        case 'h': http = 1; break;
        case 'a': apache = 1; break;
        case 'p': path = optarg; break;
        case 'b': body = atoll(optarg); break;
        case 'l': length = atoll(optarg); break;
        case 't': tail = optarg; break;
        case 's': slow_every = atol(optarg); break;
        case 'S': slow_path = optarg; break;
        default: return 2;
        }
    if (optind != argc || clients < 1 || strlen(tail) > TAIL || strlen(path) > 200 || strlen(slow_path) > 200 ||
        (connections > 1 && (http || body))) {
        fprintf(stderr, "usage: client [OPTIONS, see client.c]\n");
        return 2;
    }
    struct tally *all = mmap(NULL, clients * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%199s %lf %lu", address, &seconds, &seed) != 3 || !find(address)) {
            fprintf(stderr, "client: neither a path nor HOST:PORT, seconds and a seed: %s", line);
            return 2;
        }
        seed *= 100000000UL;
        slice(all);
        fflush(stdout);
    }
    return 0;
}
