"""An application for large bodies: counts what it is sent, and sends a file.

/upload reads the body in blocks and answers with its length; /download is the file that BENCH_FILE names, by
`wsgi.file_wrapper`.
"""

import os

BLOCK = 65536


def application(environ, start_response):
    if environ["PATH_INFO"] == "/download":
        file = open(os.environ["BENCH_FILE"], "rb")
        size = os.fstat(file.fileno()).st_size
        body = environ["wsgi.file_wrapper"](file, BLOCK)
    else:
        count = 0
        while block := environ["wsgi.input"].read(BLOCK):
            count += len(block)
        body = [b"%d\n" % count]
        size = len(body[0])
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))])
    return body
