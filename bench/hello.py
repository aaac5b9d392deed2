"""The application that every server in the comparison runs, as small as one can be: for WSGI, and for ASGI."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world\n"]


async def asgi(scope, receive, send):
    if scope["type"] == "http":  # the lifespan protocol is not spoken: servers go on without
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"Hello, world\n"})
    else:
        raise ValueError(scope["type"])
