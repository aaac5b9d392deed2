"""Where the application is mounted: SCRIPT_NAME and PATH_INFO, right behind every web server.

Applications build their links from these two (PEP 3333): SCRIPT_NAME is the mount, PATH_INFO the rest,
both decoded, and their sum is the path that was asked for. Web servers differ widely: some send neither,
some put everything into one, one sends a part still percent-encoded. What each really sends is in
`tests/captures`; the rules here are those that the captures need. This file knows strings only and
imports nothing of the project.
"""

from urllib.parse import unquote


def parse_mount(text: str) -> str:
    """A mount as people write it ("/", "app", "/app/", "/café") as `split` takes it: "", "/app", Latin-1."""
    text = text.strip("/").encode().decode("latin-1")
    return "/" + text if text else ""


def split(environ: dict[str, str], mount: str | None = None) -> None:
    """Make SCRIPT_NAME and PATH_INFO of `environ` right, in place.

    Afterwards both are there. SCRIPT_NAME is empty, or begins with a slash and does not end with one.
    PATH_INFO begins with a slash, or is empty where SCRIPT_NAME is not. With a `mount` (the root is "" or
    "/") the whole path is split there; SCRIPT_NAME is then empty for a path that is not below it.
    """
    script = environ.get("SCRIPT_NAME")
    path = environ.get("PATH_INFO")
    if (
        mount is None
        and path
        and path[0] == "/" != path[1:2]
        and "%" not in path
        and script is not None
        and (not script or script[0] == "/" != script[-1])
    ):
        return  # nearly every request
    script, path = _tidy(*_as_meant(environ, script or "", path))
    if mount is not None:
        mount = mount.rstrip("/")
        whole = environ.get("DOCUMENT_URI") or script + path
        below = whole == mount or whole.startswith(mount + "/")
        script, path = _tidy(mount, whole[len(mount) :]) if below else ("", whole)
    environ["SCRIPT_NAME"] = script
    environ["PATH_INFO"] = path


def _as_meant(environ: dict[str, str], script: str, path: str | None) -> tuple[str, str]:
    """What the web server would have sent had it split the path well."""
    filename = environ.get("SCRIPT_FILENAME", "")
    if filename.startswith("proxy:"):
        return _behind_apache(script, path, filename)
    if path is not None:
        return script, path
    if script and (filename or "GATEWAY_INTERFACE" in environ):
        return script, ""  # lighttpd and CGI leave an empty PATH_INFO out
    if whole := environ.get("DOCUMENT_URI"):  # nginx, already decoded and normalised
        return (script, whole[len(script) :]) if script and whole.startswith(script + "/") else ("", whole)
    if script:
        return "", script  # mod_scgi in a <Location>: the whole path
    return "", _requested(environ.get("REQUEST_URI", ""))


def _behind_apache(script: str, path: str | None, filename: str) -> tuple[str, str]:
    """mod_proxy_scgi: `filename` is proxy:scgi://host:port/rest.

    With ProxyPass the rest is the path below the mount, percent-encoded. With SetHandler it is the name of a
    file, and the split is right.
    """
    rest = filename.partition("://")[2].partition("/")[2]
    rest = rest.lstrip("/")  # "ProxyPass /x scgi://host/" makes it two
    below = "/" + unquote(rest, "latin-1")
    if path is None:
        return (script.removesuffix(below), below) if script.endswith(below) else (script, "")
    if path.lstrip("/") != rest:
        return script, path
    # The variable proxy-scgi-pathinfo is set: PATH_INFO is encoded. Apache compared it with the decoded path,
    # from the end, and stopped at the last %: SCRIPT_NAME has swallowed everything up to the next slash.
    if "%" in rest:
        encoded, _, tail = rest.rpartition("%")
        script = script.removesuffix("/" + unquote(encoded + "%" + tail.partition("/")[0], "latin-1"))
    return script, below


def _requested(target: str) -> str:
    """The decoded path of a target ("/a%20b?x", "http://host/a%20b"); "/" for the targets that have none."""
    target = target.partition("?")[0].partition("#")[0]
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return unquote(target, "latin-1")


def _tidy(script: str, path: str) -> tuple[str, str]:
    """The slashes where `split` promises them."""
    mount = script.strip("/")
    if path[:1] != "/" and (path or not mount or script[-1] == "/"):
        path = "/" + path
    return "/" + mount if mount else "", path
