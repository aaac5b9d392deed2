"""A visitor with cookies, who follows redirects, reads forms and sends them."""

from __future__ import annotations

import http.client
import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape

File = tuple[str, str, bytes]  # its name, its type, its content


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    url: str

    @property
    def text(self) -> str:
        return self.body.decode()


class Visitor:
    def __init__(self, site: str) -> None:
        self.site = site
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        return self._ask(urllib.request.Request(self._url(path), headers=dict(headers or {}), method=method))

    def post(self, path: str, fields: Mapping[str, str], files: Mapping[str, File] | None = None) -> Answer:
        """A form as browsers send it: with files as multipart/form-data."""
        if files is None:
            kind, body = "application/x-www-form-urlencoded", urllib.parse.urlencode(fields).encode()
        else:
            boundary = uuid.uuid4().hex
            kind, body = f"multipart/form-data; boundary={boundary}", multipart(fields, files, boundary)
        return self._ask(urllib.request.Request(self._url(path), body, {"Content-Type": kind}, method="POST"))

    def _url(self, path: str) -> str:
        return path if "://" in path else self.site + path

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            answer = self.opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:  # 304, 404 and their like
            answer = error
        with answer:
            return Answer(answer.status, answer.headers, answer.read(), answer.url)


def multipart(fields: Mapping[str, str], files: Mapping[str, File], boundary: str) -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, (file, kind, content) in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {kind}\r\n\r\n'
        parts.append(f"--{boundary}\r\n{head}".encode() + content + b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def hidden(page: str, name: str) -> str:
    """The value of a form's hidden field, or of any other input with that name."""
    for tag in re.findall(r"<input\b[^>]*>", page):
        if re.search(rf'\bname="{name}"', tag) and (value := re.search(r'\bvalue="([^"]*)"', tag)):
            return unescape(value[1])
    raise AssertionError(f"no field {name} in:\n{page}")
