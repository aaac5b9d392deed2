/* Runs a command, and appends to a file how much CPU time that cost: microseconds, on a line.

       CPU_TALLY=FILE timed COMMAND [ARGUMENTS]

   The daemon of mod_cgid ignores SIGCHLD, so the kernel adds up nowhere what its programs have cost. They begin with
   "#!timed PYTHON" instead of "#!PYTHON"; what timed itself costs is in no account, which is in favour of CGI. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *tally = getenv("CPU_TALLY");
    struct rusage spent;
    char line[32];
    int status, file = tally ? open(tally, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;

    if (argc < 2 || file < 0) {
        fprintf(stderr, "timed: no command, or CPU_TALLY is no file\n");
        return 2;
    }
    signal(SIGCHLD, SIG_DFL); /* who ignores it is told nothing by wait4 */
    pid_t child = vfork();
    if (!child) {
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &spent) < 0)
        return 1;
    long us = (spent.ru_utime.tv_sec + spent.ru_stime.tv_sec) * 1000000L + spent.ru_utime.tv_usec + spent.ru_stime.tv_usec;
    if (write(file, line, sprintf(line, "%ld\n", us)) < 0)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
