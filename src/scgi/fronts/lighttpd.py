"""The site in lighttpd's language: a file to include, on Debian /etc/lighttpd/conf-enabled/NAME.conf.

Conditions compare beginnings (`=^`, from 1.4.65 on), not regular expressions: those match UTF-8 only, and a path with
other bytes would get a 404. Imports `net`.
"""

from __future__ import annotations

from scgi.fronts.site import Site
from scgi.fronts.template import fill
from scgi.net.address import Address


def configuration(site: Site) -> str:
    """The whole file. Raises ValueError with a sentence for what lighttpd's language has no words for."""
    found = [
        (f'=^ "{prefix}"', f'    alias.url = ( "{prefix}" => {_quoted(where)} )\n') for prefix, where in site.static
    ]
    for mount in site.mounts_by_length:
        tests = [f'== "{mount}"', f'=^ "{mount}/"'] if mount else ['=^ "/"']
        found += [(test, _servers(site, mount)) for test in tests]
    return fill(
        "lighttpd.conf",
        site,
        modules='"mod_alias", "mod_scgi"' if site.static else '"mod_scgi"',
        kib=-(-site.max_body // 1024),
        stream=fill("lighttpd-stream.conf" if site.stream else "lighttpd-buffer.conf"),
        conditions="\n" + "else ".join(f'$HTTP["url"] {test} {{\n{inside}}}\n' for test, inside in found),
    )


def _servers(site: Site, mount: str) -> str:
    rows = "".join(
        fill(
            "lighttpd-server.conf",
            site,
            place=_place(address),
            root='          "fix-root-scriptname" => "enable",' * (not mount),
        )
        for address in site.upstream
    )
    balance = '    scgi.balance = "round-robin"\n' * (len(site.upstream) > 1)
    return f'    scgi.server = ( "{mount or "/"}" => (\n{rows}    ) )\n{balance}'


def _place(address: Address) -> str:
    if address.kind == "unix":
        return f'"socket" => {_quoted(address.path)}'
    return f'"host" => "{address.host}", "port" => {address.port}'


def _quoted(path: str) -> str:
    if '"' in path or "\\" in path:
        raise ValueError(f"lighttpd cannot be told of a path with quotes or backslashes in it, got {path!r}")
    return f'"{path}"'
