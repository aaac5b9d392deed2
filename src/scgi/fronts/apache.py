"""The site in Apache's language, for its own mod_proxy_scgi and for our mod_scgi: a `<VirtualHost>`.

mod_proxy_scgi sends PATH_INFO where Apache's own walk over the file system has found one. So each mount is given the
name of a file that is not there: what Apache cannot find is SCRIPT_NAME, what comes after it PATH_INFO, both decoded.
(With ProxyPass there is no PATH_INFO at all, and with `proxy-scgi-pathinfo` it is still encoded.) Imports `net`.
"""

from __future__ import annotations

import re
from typing import Final

from scgi.fronts.site import Site
from scgi.fronts.template import fill
from scgi.net.address import Address

# Apache reads ${NAME} as a variable wherever it stands, and a URL is written around the path of a socket.
_REFUSED: Final = re.compile(r'["\\|?#%$]')


def configuration(site: Site) -> str:
    """The whole file, for mod_proxy_scgi. Raises ValueError with a sentence for what has no words there."""
    several = len(site.upstream) > 1
    beyond = "".join(f"(?!{re.escape(prefix)})" for prefix, _ in site.static)
    options = f"timeout={site.timeout} connectiontimeout=5"
    members = [f"        ProxySet {options} retry=0"]
    if several:
        urls = [_url(address, f"{site.name}-{number}") for number, address in enumerate(site.upstream, 1)]
        members = [f'        BalancerMember "{url}" {options} retry=5' for url in urls]
    application = fill(
        "apache-proxy.conf",
        site,
        pattern=f'"^{beyond}(?:{site.pattern})(/.*)?$"',
        target=f"balancer://{site.name}" if several else _url(site.upstream[0], site.name),
        members="\n".join(members),
    )
    return _virtual_host(site, "alias proxy proxy_scgi" + " proxy_balancer lbmethod_byrequests" * several, application)


def mod_scgi(site: Site) -> str:
    """The same for our own module, apache2/mod_scgi.c."""
    places = " ".join(f'"{_place(address)}"' for address in site.upstream)
    off = [f'    <Location "{prefix}">\n        SCGIHandler Off\n    </Location>' for prefix, _ in site.static]
    application = fill(
        "apache-module.conf",
        site,
        mounts="\n".join(f"    SCGIMount {mount or '/'} {places}" for mount in site.mounts_by_length),
        off="\n".join(off),
    )
    return _virtual_host(site, "alias scgi" if site.static else "scgi", application)


def _virtual_host(site: Site, modules: str, application: str) -> str:
    static = "".join(fill("apache-static.conf", prefix=prefix, folder=_folder(where)) for prefix, where in site.static)
    return fill(
        "apache.conf",
        site,
        modules=modules,
        listen=site.listen if site.listen.host else f"*:{site.listen.port}",
        port=site.listen.port,
        static=static,
        application=application,
    )


def _url(address: Address, name: str) -> str:
    """Each unix socket needs a name of its own: by that Apache tells them apart."""
    return f"{_place(address)}|scgi://{name}" if address.kind == "unix" else f"scgi://{address}"


def _place(address: Address) -> str:
    if _REFUSED.search(address.path):
        raise ValueError(
            f'--upstream: Apache cannot be told of a path with any of " \\ | ? # % $, got {address.path!r}'
        )
    return str(address)


def _folder(path: str) -> str:
    if set(path) & set('"\\$'):
        raise ValueError(f'--static: Apache cannot be told of a path with any of " \\ $, got {path!r}')
    return f'"{path}"'
