/* The least that a server can do: accept, read, send, close, one connection after another, and nothing else.

       floor ADDRESS [BYTES]

   ADDRESS is the path of a unix socket, or HOST:PORT with a numeric host. It looks at no request. The answer is the one
   of bench/hello.py, or a body of so many bytes that end in a line feed. What it costs is the kernel's. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char request[64 * 1024];
    struct sockaddr_storage where = {0};
    socklen_t size;
    const char *colon;
    char host[64] = "";
    int one = 1;

    if (argc < 2) {
        fprintf(stderr, "usage: floor ADDRESS [BYTES]\n");
        return 2;
    }
    if (strchr(argv[1], '/')) {
        struct sockaddr_un *un = (struct sockaddr_un *)&where;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "%s", argv[1]);
        unlink(argv[1]);
        size = sizeof *un;
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)&where;
        colon = strrchr(argv[1], ':');
        snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - argv[1]) : 0, argv[1]);
        in->sin_family = AF_INET;
        in->sin_port = htons(colon ? atoi(colon + 1) : 0);
        inet_pton(AF_INET, host, &in->sin_addr);
        size = sizeof *in;
    }

    long length = argc > 2 ? atol(argv[2]) : 13;
    char *answer = malloc(length + 100);
    long head = sprintf(answer, "Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %ld\r\n\r\n", length);
    memset(answer + head, 'x', length);
    answer[head + length - 1] = '\n';
    if (argc <= 2)
        memcpy(answer + head, "Hello, world\n", 13);

    int listener = socket(where.ss_family, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&where, size) < 0 || listen(listener, 2048) < 0) {
        perror("floor");
        return 1;
    }
    for (;;) {
        int sock = accept(listener, NULL, NULL);
        if (sock < 0)
            continue;
        if (read(sock, request, sizeof request) > 0)
            for (long sent = 0, count; sent < head + length; sent += count)
                if ((count = send(sock, answer + sent, head + length - sent, MSG_NOSIGNAL)) < 0)
                    break;
        close(sock);
    }
}
