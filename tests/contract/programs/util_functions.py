"""What the functions of `scgi.util` give and raise, one a line."""

import io
import sys

from scgi import util


def try_out(name, function, *args):
    try:
        result = repr(function(*args))
    except Exception as error:
        kinds = [kind.__name__ for kind in (OSError, ValueError) if isinstance(error, kind)]
        result = "raises " + (" and ".join(kinds) or "something else")
    print(f"{name}: {result}")


def file(data):
    return io.BytesIO(data)


try_out("size", util.ns_read_size, file(b"12:hello world!,"))
try_out("size cut short", util.ns_read_size, file(b"12"))
try_out("size of letters", util.ns_read_size, file(b"ab:"))
try_out("size with a sign", util.ns_read_size, file(b"+5:"))
try_out("netstring", util.ns_reads, file(b"12:hello world!,rest"))
try_out("empty netstring", util.ns_reads, file(b"0:,"))
try_out("netstring cut short", util.ns_reads, file(b"12:hello"))
try_out("netstring without its comma", util.ns_reads, file(b"5:hello!"))
try_out("netstring of 2 MB", lambda: len(util.ns_reads(file(b"2000000:" + b"a" * 2000000 + b","))))
try_out("variables", util.parse_env, b"NAME\0value\0OTHER\0\xe9\0")
try_out("no variables", util.parse_env, b"")
try_out("odd variables", util.parse_env, b"NAME\0value\0OTHER\0")
try_out("variables without an end", util.parse_env, b"NAME\0value\0OTHER")
try_out("head", util.read_env, file(b"24:CONTENT_LENGTH\x000\0SCGI\x001\0,"))
try_out("handler", lambda: util.SCGIHandler.__name__)
sys.stderr = io.StringIO()
util.log("a line")
try_out("log", lambda: (sys.stderr.getvalue()[0], sys.stderr.getvalue()[-8:]))
