"""The site in nginx's language: a file for `http { }`, on Debian /etc/nginx/conf.d/NAME.conf.

Every variable is named there and none included: `scgi_params` differs between nginx and its packagers (Debian's
HTTP_HOST has lost its port), and two `scgi_param` of one name are both sent. Imports `net`.
"""

from __future__ import annotations

from scgi.fronts.site import Site
from scgi.fronts.template import fill


def configuration(site: Site) -> str:
    """The whole file. Raises ValueError with a sentence for what nginx's language has no words for."""
    several, root = len(site.upstream) > 1, site.mount == ("",)
    failing = " max_fails=3 fail_timeout=5s" if several else ""
    return fill(
        "nginx.conf",
        site,
        word=site.name.replace("-", "_"),
        servers="\n".join(f"    server {quoted(str(address))}{failing};" for address in site.upstream),
        listen=str(site.listen).lstrip(":"),
        max_body=f"{site.max_body >> 20}m" if site.max_body % (1 << 20) == 0 else site.max_body,
        static="".join(
            fill("nginx-static.conf", prefix=prefix, folder=_folder(where)) for prefix, where in site.static
        ),
        location="/" if root else f'~ "(?s)^(?<scgi_mount>{site.pattern})(?<scgi_path>/.*)?$"',
        balance=fill("nginx-balance.conf") if several else "",
        stream=fill("nginx-stream.conf") if site.stream else "",
        script_name='""' if root else "$scgi_mount",
        path_info="$document_uri" if root else "$scgi_path",
    )


def _folder(path: str) -> str:
    if "$" in path:
        raise ValueError(f"--static: nginx cannot be told of a path with '$' in it, got {path!r}")
    return quoted(path)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
