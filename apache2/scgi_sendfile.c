/* X-Sendfile: a file instead of a body, if it lies below the folder that is meant for this.
 *
 * Links and ".." are followed first; where that ends has to be inside.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_portable.h"
#include "mod_scgi.h"

APLOG_USE_MODULE(scgi);

static int refuse(request_rec *r, const char *path, const char *why, int error)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, error, r,
                  "SCGI20: X-Sendfile: %s %s: an application may name regular files below the folder of SCGISendfile "
                  "that Apache's user may read",
                  path, why);
    return error == ENOENT || error == ENOTDIR ? HTTP_NOT_FOUND : HTTP_FORBIDDEN;
}

static int is_inside(const char *path, const char *root)
{
    apr_size_t length = strlen(root);

    if (strcmp(root, "/") == 0)
        return 1;
    return strncmp(path, root, length) == 0 && path[length] == '/';
}

int scgi_sendfile(request_rec *r, const char *root, const char *path)
{
    char real[PATH_MAX], inside[PATH_MAX];
    struct stat facts;
    apr_bucket_brigade *bb;
    apr_file_t *file = NULL;
    int fd;

    if (*path != '/')
        return refuse(r, path, "is not a whole path", 0);
    if (!realpath(path, real))
        return refuse(r, path, "cannot be found", errno);
    if (!realpath(root, inside) || !is_inside(real, inside))
        return refuse(r, path, "is not inside", 0);
    fd = open(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return refuse(r, path, "cannot be opened", errno);
    if (fstat(fd, &facts) < 0 || !S_ISREG(facts.st_mode)
        || apr_os_file_put(&file, &fd, APR_READ | APR_BINARY | APR_SENDFILE_ENABLED, r->pool) != APR_SUCCESS) {
        close(fd);
        return refuse(r, path, "is not a regular file", 0);
    }
    apr_pool_cleanup_register(r->pool, file, (apr_status_t (*)(void *))apr_file_close, apr_pool_cleanup_null);
    ap_set_content_length(r, facts.st_size);
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    apr_brigade_insert_file(bb, file, 0, facts.st_size, r->pool);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(r->connection->bucket_alloc));
    ap_pass_brigade(r->output_filters, bb);
    return OK;
}
