/* A small SCGI load client: asks over a unix socket as fast as answers come.

       client SOCKET SECONDS SEED

   The headers are a real browser's behind nginx; port, query and cookie change with every request. Prints the number
   of right answers; a wrong one ends it with status 1. It is C because web servers are: a client in Python would
   push the servers under test out of the processor's caches. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char expected[] = "Hello, world\n";

/* Append NAME\0VALUE\0 to the block. */
static char *put(char *at, const char *name, const char *value)
{
    at = stpcpy(at, name) + 1;
    return stpcpy(at, value) + 1;
}

/* The whole request with the number's own port, query and cookie; returns its length. */
static int request(char *out, unsigned long number)
{
    char block[4096], query[64], uri[96], port[16], cookie[80], *at = block;

    snprintf(query, sizeof query, "id=%lu&page=%lu", number, number % 7);
    snprintf(uri, sizeof uri, "/shop/item?%s", query);
    snprintf(port, sizeof port, "%lu", 20000 + number % 40000);
    snprintf(cookie, sizeof cookie, "session=%032lx; theme=dark", number * 2654435761UL);
    at = put(at, "CONTENT_LENGTH", "0");
    at = put(at, "REQUEST_METHOD", "GET");
    at = put(at, "REQUEST_URI", uri);
    at = put(at, "QUERY_STRING", query);
    at = put(at, "CONTENT_TYPE", "");
    at = put(at, "DOCUMENT_URI", "/shop/item");
    at = put(at, "DOCUMENT_ROOT", "/usr/share/nginx/html");
    at = put(at, "SCGI", "1");
    at = put(at, "SERVER_PROTOCOL", "HTTP/1.1");
    at = put(at, "REQUEST_SCHEME", "http");
    at = put(at, "REMOTE_ADDR", "127.0.0.1");
    at = put(at, "REMOTE_PORT", port);
    at = put(at, "SERVER_PORT", "80");
    at = put(at, "SERVER_NAME", "shop.example");
    at = put(at, "SCRIPT_NAME", "");
    at = put(at, "PATH_INFO", "/shop/item");
    at = put(at, "HTTP_HOST", "shop.example");
    at = put(at, "HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0");
    at = put(at, "HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
    at = put(at, "HTTP_ACCEPT_LANGUAGE", "en-GB,en;q=0.7,de;q=0.3");
    at = put(at, "HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd");
    at = put(at, "HTTP_REFERER", "http://shop.example/shop");
    at = put(at, "HTTP_CONNECTION", "keep-alive");
    at = put(at, "HTTP_COOKIE", cookie);
    at = put(at, "HTTP_UPGRADE_INSECURE_REQUESTS", "1");

    int start = sprintf(out, "%d:", (int)(at - block));
    memcpy(out + start, block, at - block);
    out[start + (at - block)] = ',';
    return start + (int)(at - block) + 1;
}

/* One request and its answer; 1 if it is the right one, -1 if the server's queue is full. */
static int ask(const struct sockaddr_un *where, unsigned long number)
{
    char data[8192];
    int length = request(data, number), got = 0, count;
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);

    if (connect(sock, (const struct sockaddr *)where, sizeof *where) < 0) {
        close(sock);
        return errno == EAGAIN ? -1 : 0;
    }
    if (write(sock, data, length) != length) {
        close(sock);
        return 0;
    }
    while ((count = read(sock, data + got, sizeof data - got)) > 0)
        got += count;
    close(sock);
    int tail = sizeof expected - 1;
    return got > tail && memcmp(data + got - tail, expected, tail) == 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    unsigned long number, good = 0;

    if (argc != 4 || strlen(argv[1]) >= sizeof where.sun_path) {
        fprintf(stderr, "usage: client SOCKET SECONDS SEED\n");
        return 2;
    }
    strcpy(where.sun_path, argv[1]);
    number = strtoul(argv[3], NULL, 10);
    for (double end = now() + atof(argv[2]); now() < end;) {
        for (int turn = 0; turn < 20; turn++) {
            int answer = ask(&where, ++number);
            if (!answer) {
                fprintf(stderr, "client: a wrong answer, or none\n");
                return 1;
            }
            if (answer > 0)
                good++;
            else
                usleep(100);
        }
    }
    printf("%lu\n", good);
    return 0;
}
