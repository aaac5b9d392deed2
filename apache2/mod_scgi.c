/* mod_scgi: Apache hands requests to an SCGI server.
 *
 * This file is what an administrator sees: the directives, how sections inherit them, and which requests are ours. What
 * happens to a request then begins in scgi_exchange.c.
 */

#include <stdlib.h>

#include "mod_scgi.h"

extern __attribute__((visibility("default"))) module AP_MODULE_DECLARE_DATA scgi_module;
APLOG_USE_MODULE(scgi);

#define UNSET (-1)

typedef struct {
    const char *path; /* without a slash at its end: "" is the root */
    apr_size_t length;
    scgi_upstream *upstream; /* NULL: none was given */
} scgi_mount;

typedef struct {
    apr_array_header_t *mounts; /* of scgi_mount, the longest path first */
} scgi_server_config;

typedef struct {
    int handler;
    scgi_upstream *upstream;
    int upstream_of_section; /* SCGIServer stood in a section, not at server level */
    const char *location;    /* of the <Location PATH> that switched us on: what SCRIPT_NAME is without a mount */
    apr_interval_time_t timeout;
    apr_interval_time_t connect_timeout;
    const char *sendfile_root; /* "" is Off */
} scgi_dir_config;

static scgi_upstream *default_upstream;

/* -- merging ------------------------------------------------------------------------------------------------------ */

/* Mounts are kept in the order in which they are tried, so that the order in the file says nothing. */
static void add_mount(apr_array_header_t *mounts, const scgi_mount *mount)
{
    scgi_mount *all;
    int at;

    apr_array_push(mounts);
    all = (scgi_mount *)mounts->elts;
    for (at = mounts->nelts - 1; at > 0 && all[at - 1].length < mount->length; at--)
        all[at] = all[at - 1];
    all[at] = *mount;
}

static const scgi_mount *mount_at(const apr_array_header_t *mounts, const char *path)
{
    const scgi_mount *all = (const scgi_mount *)mounts->elts;
    int n;

    for (n = 0; n < mounts->nelts; n++)
        if (strcmp(all[n].path, path) == 0)
            return &all[n];
    return NULL;
}

static void *create_server_config(apr_pool_t *pool, server_rec *server)
{
    scgi_server_config *config = apr_pcalloc(pool, sizeof(*config));

    (void)server;
    config->mounts = apr_array_make(pool, 4, sizeof(scgi_mount));
    return config;
}

/* A <VirtualHost> has the mounts of the main server too, but for those that it mounts anew. */
static void *merge_server_config(apr_pool_t *pool, void *base_config, void *add_config)
{
    const scgi_server_config *base = base_config, *add = add_config;
    scgi_server_config *config = apr_pcalloc(pool, sizeof(*config));
    int n;

    config->mounts = apr_array_copy(pool, add->mounts);
    for (n = 0; n < base->mounts->nelts; n++) {
        const scgi_mount *mount = &((const scgi_mount *)base->mounts->elts)[n];
        if (!mount_at(add->mounts, mount->path))
            add_mount(config->mounts, mount);
    }
    return config;
}

static void *create_dir_config(apr_pool_t *pool, char *path)
{
    scgi_dir_config *config = apr_pcalloc(pool, sizeof(*config));

    (void)path;
    config->handler = UNSET;
    config->timeout = UNSET;
    config->connect_timeout = UNSET;
    return config;
}

#define MERGE(field, unset) config->field = add->field != (unset) ? add->field : base->field

static void *merge_dir_config(apr_pool_t *pool, void *base_config, void *add_config)
{
    const scgi_dir_config *base = base_config, *add = add_config;
    scgi_dir_config *config = apr_pcalloc(pool, sizeof(*config));

    MERGE(handler, UNSET);
    MERGE(upstream, NULL);
    MERGE(location, NULL);
    MERGE(timeout, UNSET);
    MERGE(connect_timeout, UNSET);
    MERGE(sendfile_root, NULL);
    config->upstream_of_section = add->upstream ? add->upstream_of_section : base->upstream_of_section;
    return config;
}

/* -- directives --------------------------------------------------------------------------------------------------- */

static const char *set_mount(cmd_parms *cmd, void *unused, int argc, char *const argv[])
{
    scgi_server_config *config = ap_get_module_config(cmd->server->module_config, &scgi_module);
    scgi_mount mount = {NULL, 0, NULL};
    char *path;

    (void)unused;
    if (argc < 1 || argv[0][0] != '/')
        return "SCGI02: SCGIMount: the path to mount at begins with a slash, as in SCGIMount /shop 127.0.0.1:4000";
    path = apr_pstrdup(cmd->pool, argv[0]);
    ap_no2slash(path);
    mount.length = strlen(path);
    while (mount.length && path[mount.length - 1] == '/')
        path[--mount.length] = '\0';
    mount.path = path;
    if (mount_at(config->mounts, path))
        return apr_psprintf(cmd->pool, "SCGI03: SCGIMount: %s is mounted already: "
                            "write all addresses of its servers in one directive", argv[0]);
    if (argc > 1) {
        const char *wrong = scgi_upstream_make(&mount.upstream, argc - 1, argv + 1, cmd->pool);
        if (wrong)
            return wrong;
    }
    add_mount(config->mounts, &mount);
    return NULL;
}

/* The path of the <Location> around a directive, if it is a plain one. */
static const char *plain_location(cmd_parms *cmd)
{
    const ap_directive_t *around;

    for (around = cmd->directive->parent; around; around = around->parent)
        if (ap_cstr_casecmp(around->directive, "<Location") == 0) {
            if (!cmd->path || *cmd->path != '/' || apr_fnmatch_test(cmd->path) || strchr(around->args, '~'))
                return NULL;
            return strcmp(cmd->path, "/") == 0 ? "" : apr_pstrdup(cmd->pool, cmd->path);
        }
    return NULL;
}

static const char *set_server(cmd_parms *cmd, void *dir_config, int argc, char *const argv[])
{
    scgi_dir_config *config = dir_config;

    if (argc < 1)
        return "SCGI01: SCGIServer: expected the address of a server, as in SCGIServer 127.0.0.1:4000";
    config->upstream_of_section = cmd->path != NULL;
    config->location = plain_location(cmd);
    return scgi_upstream_make(&config->upstream, argc, argv, cmd->pool);
}

static const char *set_handler(cmd_parms *cmd, void *dir_config, int on)
{
    scgi_dir_config *config = dir_config;

    config->handler = on;
    if (on)
        config->location = plain_location(cmd);
    return NULL;
}

static const char *seconds(cmd_parms *cmd, const char *word, apr_interval_time_t *value)
{
    char *end;
    double number = strtod(word, &end);

    if (end == word || *end || !(number >= 0.001 && number <= 1e6) || strspn(word, "0123456789.") != strlen(word))
        return apr_psprintf(cmd->pool, "SCGI05: %s: expected a number of seconds, greater than 0, got %s",
                            cmd->cmd->name, word);
    *value = (apr_interval_time_t)(number * APR_USEC_PER_SEC);
    return NULL;
}

static const char *set_timeout(cmd_parms *cmd, void *dir_config, const char *word)
{
    return seconds(cmd, word, &((scgi_dir_config *)dir_config)->timeout);
}

static const char *set_connect_timeout(cmd_parms *cmd, void *dir_config, const char *word)
{
    return seconds(cmd, word, &((scgi_dir_config *)dir_config)->connect_timeout);
}

static const char *set_sendfile(cmd_parms *cmd, void *dir_config, const char *word)
{
    scgi_dir_config *config = dir_config;

    if (ap_cstr_casecmp(word, "Off") == 0) {
        config->sendfile_root = "";
        return NULL;
    }
    if (*word != '/' || !ap_is_directory(cmd->temp_pool, word))
        return apr_psprintf(cmd->pool, "SCGI06: SCGISendfile: expected Off, or the whole path of a folder, got %s", word);
    config->sendfile_root = apr_pstrdup(cmd->pool, word);
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_TAKE_ARGV("SCGIMount", set_mount, NULL, RSRC_CONF, "a path, and the servers of the application there"),
    AP_INIT_TAKE_ARGV("SCGIServer", set_server, NULL, RSRC_CONF | ACCESS_CONF, "the servers to ask"),
    AP_INIT_FLAG("SCGIHandler", set_handler, NULL, ACCESS_CONF, "On or Off: whether requests go to an SCGI server"),
    AP_INIT_TAKE1("SCGIServerTimeout", set_timeout, NULL, RSRC_CONF | ACCESS_CONF,
                  "seconds that a server may be silent"),
    AP_INIT_TAKE1("SCGIConnectTimeout", set_connect_timeout, NULL, RSRC_CONF | ACCESS_CONF,
                  "seconds until a server has to have accepted"),
    AP_INIT_TAKE1("SCGISendfile", set_sendfile, NULL, RSRC_CONF | ACCESS_CONF,
                  "the folder whose files X-Sendfile may name, or Off"),
    {NULL}};

/* -- which requests are ours -------------------------------------------------------------------------------------- */

scgi_job *scgi_job_of(request_rec *r)
{
    return ap_get_module_config(r->request_config, &scgi_module);
}

/* Whether uri is path, or below it: /shop is neither /shopping nor /sho. */
static int is_below(const char *uri, const char *path, apr_size_t length)
{
    return strncmp(uri, path, length) == 0 && (uri[length] == '/' || uri[length] == '\0');
}

static const scgi_mount *find_mount(request_rec *r)
{
    const scgi_server_config *config = ap_get_module_config(r->server->module_config, &scgi_module);
    const scgi_mount *all = (const scgi_mount *)config->mounts->elts;
    int n;

    for (n = 0; n < config->mounts->nelts; n++)
        if (is_below(r->uri, all[n].path, all[n].length))
            return &all[n];
    return NULL;
}

static int is_switched_on(const scgi_dir_config *config)
{
    return config->handler == 1 || (config->handler == UNSET && config->upstream && config->upstream_of_section);
}

static int accept_request(request_rec *r, const scgi_mount *mount, apr_size_t script_length)
{
    scgi_job *job = apr_pcalloc(r->pool, sizeof(*job));

    job->script_length = script_length;
    job->upstream = mount ? mount->upstream : NULL;
    ap_set_module_config(r->request_config, &scgi_module, job);
    r->handler = SCGI_HANDLER;
    return OK;
}

/* The <Location> sections are known here, those of folders and files are not: none of ours is a file. */
static int translate(request_rec *r)
{
    const scgi_dir_config *config = ap_get_module_config(r->per_dir_config, &scgi_module);
    const scgi_mount *mount;
    apr_size_t script_length;

    if (config->handler == 0 || r->proxyreq || r->uri[0] != '/')
        return DECLINED;
    mount = find_mount(r);
    if (mount)
        script_length = mount->length;
    else if (!is_switched_on(config))
        return DECLINED;
    else if (config->location && is_below(r->uri, config->location, strlen(config->location)))
        script_length = strlen(config->location);
    else
        script_length = strlen(r->uri);
    r->filename = r->uri; /* hooks of other modules want one */
    return accept_request(r, mount, script_length);
}

static int map_to_storage(request_rec *r)
{
    return scgi_job_of(r) ? OK : DECLINED;
}

/* First of its kind, so that the end of a path (/index.php, /a.html.gz) gives the request no other handler and the
 * answer no type. Here the sections of folders and files are known, so they may switch us on too. */
static int check_type(request_rec *r)
{
    const scgi_dir_config *config = ap_get_module_config(r->per_dir_config, &scgi_module);

    if (scgi_job_of(r)) {
        r->handler = SCGI_HANDLER;
        return OK;
    }
    if (!is_switched_on(config) || r->proxyreq || r->uri[0] != '/')
        return DECLINED;
    return accept_request(r, NULL, (apr_size_t)ap_find_path_info(r->uri, r->path_info ? r->path_info : ""));
}

#define OR_ELSE(value, unset, otherwise) ((value) != (unset) ? (value) : (otherwise))

static int handle(request_rec *r)
{
    const scgi_dir_config *config;
    scgi_job *job;

    if (!r->handler || strcmp(r->handler, SCGI_HANDLER) != 0)
        return DECLINED;
    config = ap_get_module_config(r->per_dir_config, &scgi_module);
    if (config->handler == 0) /* an <If> may say so as late as this */
        return DECLINED;
    if (!scgi_job_of(r)) /* SetHandler scgi-handler */
        accept_request(r, NULL, (apr_size_t)ap_find_path_info(r->uri, r->path_info ? r->path_info : ""));
    job = scgi_job_of(r);
    if (config->upstream && (config->upstream_of_section || !job->upstream))
        job->upstream = config->upstream;
    if (!job->upstream)
        job->upstream = default_upstream;
    job->timeout = OR_ELSE(config->timeout, UNSET, SCGI_DEFAULT_TIMEOUT);
    job->connect_timeout = OR_ELSE(config->connect_timeout, UNSET, SCGI_DEFAULT_CONNECT_TIMEOUT);
    job->sendfile_root = config->sendfile_root && *config->sendfile_root ? config->sendfile_root : NULL;
    return scgi_exchange(r, job);
}

static int prepare(apr_pool_t *pool, apr_pool_t *log, apr_pool_t *temporary)
{
    char *const word[] = {SCGI_DEFAULT_ADDRESS};

    (void)log;
    (void)temporary;
    return scgi_upstream_make(&default_upstream, 1, word, pool) ? HTTP_INTERNAL_SERVER_ERROR : OK;
}

static int announce(apr_pool_t *pool, apr_pool_t *log, apr_pool_t *temporary, server_rec *server)
{
    (void)log;
    (void)temporary;
    (void)server;
    ap_add_version_component(pool, "mod_scgi/" SCGI_VERSION);
    return OK;
}

static void register_hooks(apr_pool_t *pool)
{
    (void)pool;
    ap_hook_pre_config(prepare, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(announce, NULL, NULL, APR_HOOK_MIDDLE);
    /* Alias, RewriteRule and ProxyPass say more than a mount, so they are asked before. */
    ap_hook_translate_name(translate, NULL, NULL, APR_HOOK_LAST);
    ap_hook_map_to_storage(map_to_storage, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_type_checker(check_type, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_handler(handle, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA scgi_module = {
    STANDARD20_MODULE_STUFF, create_dir_config, merge_dir_config, create_server_config, merge_server_config,
    directives,              register_hooks,
#if defined(AP_MODULE_FLAG_NONE)
    AP_MODULE_FLAG_NONE,
#endif
};
