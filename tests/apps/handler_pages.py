"""Handlers for test_handler.py: the path names the method that answers. Facts go to the folder that FACTS names."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from scgi.scgi_server import SCGIHandler


def fact(name, text):
    file = Path(os.environ["FACTS"], name)
    file.with_suffix(".new").write_text(str(text))
    file.with_suffix(".new").replace(file)


class Pages(SCGIHandler):
    """`produce` in all its ways."""

    kept = None

    def produce(self, env, bodysize, input, output):
        getattr(self, env["PATH_INFO"][1:])(env, bodysize, input, output)

    def pid(self, env, bodysize, input, output):
        output.write(f"Content-Type: text/plain\n\n{os.getpid()}")

    def mixed(self, env, bodysize, input, output):
        print("Content-Type: text/plain", file=output)
        print(file=output)
        output.write("tëxt ")
        output.write(b"bytes ")
        output.write(bytearray(b"array "))
        output.write(memoryview(b"view "))
        output.writelines(["a ", b"b "])
        print("printed", 1, file=output)

    def counts(self, env, bodysize, input, output):
        output.write("\n".join(["Content-Type: text/plain", "", ""]))
        output.write(repr((output.write("ab€"), output.write(b"abc"), output.writable(), output.closed)))

    def read(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        output.write(repr([input.read(), input.read(), input.read(10**9), input.readline(), input.readlines()]))

    def read_much(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        output.write(repr((input.read(10**9), input.read(1))))

    def readline(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        output.write(repr([input.readline(), input.readline(2), input.readlines(), input.readline()]))

    def iterate(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        output.write(repr(list(input)))

    def detaches(self, env, bodysize, input, output):
        Pages.kept_input = input.detach() if hasattr(input, "raw") else None
        output.write("Content-Type: text/plain\n\ndetached")

    def sizes(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        read = 0
        while block := input.read(30_000):
            read += len(block)
        output.write(f"{read} of {bodysize}")

    def large(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        for _ in range(100):
            output.write(b"x" * 10_007)

    def flushes(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n")
        output.flush()
        output.write("\nfirst ")
        output.flush()
        fact("flushed", "yes")
        os.read(os.open(os.path.join(os.environ["FACTS"], "gate"), os.O_RDONLY), 1)
        output.write("second")

    def closes(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\nall of it")
        input.close()
        output.close()
        try:
            output.write("more")
        except ValueError as error:
            fact("closed", error)

    def keeps(self, env, bodysize, input, output):
        before, Pages.kept = Pages.kept, output
        if before is not None:
            try:
                before.write("a stray line")
            except ValueError:
                before.close()
                fact("kept", "closed")
        output.write("Content-Type: text/plain\n\nkeeps")

    def early(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        output.write("x" * 60_000)
        raise LookupError("too early")

    def finally_closed(self, env, bodysize, input, output):
        try:
            output.write("Content-Type: text/plain\n\nhalf a page")
            raise LookupError("in the middle")
        finally:
            output.flush()
            output.close()

    def own_error_page(self, env, bodysize, input, output):
        try:
            raise LookupError("dealt with")
        except LookupError:
            output.write("Status: 503 Later\nContent-Type: text/plain\n\nlater")
            output.close()

    def late(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\n")
        output.write("x" * 70_000)
        raise LookupError("too late")

    def after_flush(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\nbegun")
        output.flush()
        raise LookupError("too late")

    def interrupt(self, env, bodysize, input, output):
        raise KeyboardInterrupt

    def memory(self, env, bodysize, input, output):
        raise MemoryError

    def recursion(self, env, bodysize, input, output):
        self.recursion(env, bodysize, input, output)

    def exits(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\nlast words")
        sys.exit(3)

    def exits_with_text(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\nlast words")
        sys.exit("the database is gone")

    def exits_well(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\n\nlast words")
        sys.exit(0)

    def exits_too_early(self, env, bodysize, input, output):
        output.write("Content-Length: 100\n\nlast")
        sys.exit()

    def nothing(self, env, bodysize, input, output):
        pass

    def headless(self, env, bodysize, input, output):
        output.write("just text")

    def blank_first(self, env, bodysize, input, output):
        output.write("\nno head")

    def bad_head(self, env, bodysize, input, output):
        output.write("This is not a header\n\nx")

    def endless_head(self, env, bodysize, input, output):
        for number in range(10_000):
            output.write(f"X-Header-{number}: value\n")

    def raw(self, env, bodysize, input, output):
        """What the request's body says, as it is."""
        output.write(input.read())

    def number(self, env, bodysize, input, output):
        output.write(5)


class Script(SCGIHandler):
    """`produce_cgilike` in all its ways."""

    def produce_cgilike(self, env, bodysize):
        getattr(self, env["PATH_INFO"][1:])(env, bodysize)

    def produce(self, env, bodysize, input, output):
        before = (sys.stdin, sys.stdout, os.environ, dict(os.environ))
        try:
            SCGIHandler.produce(self, env, bodysize, input, output)
        finally:
            same = sys.stdin is before[0] and sys.stdout is before[1] and os.environ is before[2]
            as_a_child_sees_it = dict(
                line.split(b"=", 1) for line in subprocess.check_output(["env", "-0"]).split(b"\0")[:-1]
            )
            unchanged = (
                before[3] == dict(os.environ) == {os.fsdecode(k): os.fsdecode(v) for k, v in as_a_child_sees_it.items()}
            )
            fact("as-before", f"{same} {unchanged} {sys.stdout.closed}")

    def hello(self, env, bodysize):
        print("Content-Type: text/plain\n")
        print("hello")

    def streams(self, env, bodysize):
        print("Content-Type: text/plain\n")
        sys.stdout.buffer.write(b"bytes ")
        print(type(sys.stdin).__mro__[1].__name__, sys.stdin.encoding, sys.stdout.encoding, sys.stdin.buffer.readable())

    def reads(self, env, bodysize):
        print("Content-Type: text/plain; charset=utf-8\n")
        print(bodysize, sys.stdin.readline(), sys.stdin.read(), sys.stdin.read(10**9), end="|")

    def reads_bytes(self, env, bodysize):
        print("Content-Type: text/plain\n", flush=True)
        sys.stdout.buffer.write(sys.stdin.buffer.read())

    def echoes(self, env, bodysize):
        print("Content-Type: text/plain\n")
        print(sys.stdin.read(), end="")

    def environment(self, env, bodysize):
        print("Content-Type: text/plain; charset=utf-8\n")
        names = ["REQUEST_METHOD", "HTTP_X_NAME", *sys.stdin.read().split()]
        child = dict(line.split("=", 1) for line in subprocess.check_output(["env"], text=True).splitlines())
        for name in names:
            print(name, os.environ.get(name) == os.getenv(name) == child.get(name), os.getenv(name))

    def changes(self, env, bodysize):
        print("Content-Type: text/plain\n")
        os.environ["MADE_HERE"] = "1"
        os.environ["ALREADY_THERE"] = "changed"
        del os.environ["REQUEST_METHOD"]
        sys.stdin, sys.stdout.extra = None, True
        print("changed")

    def replaces(self, env, bodysize):
        print("Content-Type: text/plain\n\nreplaced")
        os.environ.clear()
        os.environ = {}  # noqa: B003

    def closes(self, env, bodysize):
        print("Content-Type: text/plain\n\nclosed")
        sys.stdin.close()
        sys.stdout.close()

    def raises(self, env, bodysize):
        print("Content-Type: text/plain\n\nhalf")
        raise LookupError("on purpose")

    def exits(self, env, bodysize):
        print("Content-Type: text/plain\n\nlast words")
        sys.exit()

    def big(self, env, bodysize):
        print("Content-Type: text/plain\n")
        print("x" * 100_000)


class Connected(SCGIHandler):
    """`handle_connection` in all its ways."""

    def handle_connection(self, conn):
        fact("called", "yes")
        peek = conn.recv(10_000, socket.MSG_PEEK)
        name = peek.partition(b"PATH_INFO\0/")[2].partition(b"\0")[0].decode()
        getattr(self, name)(conn)

    def pid(self, conn):
        conn.sendall(b"Content-Type: text/plain\r\n\r\n%d" % os.getpid())

    def receives(self, conn):
        received = b""
        while data := conn.recv(7):
            received += data
        conn.sendall(b"Content-Type: application/octet-stream\r\n\r\n" + received)
        conn.close()

    def reads_all(self, conn):
        with conn.makefile("rb") as input, conn.makefile("wb") as output:
            everything = input.read()
            output.write(b"Content-Type: application/octet-stream\r\n\r\n" + everything)

    def into(self, conn):
        buffer = bytearray(5)
        parts = []
        while count := conn.recv_into(buffer):
            parts.append(bytes(buffer[:count]))
        conn.sendall(b"Content-Type: application/octet-stream\r\n\r\n")
        conn.sendall(b"".join(parts))

    def echo(self, conn, mode=""):
        input, output = conn.makefile("r" + mode), conn.makefile("w" + mode)
        env = self.read_env(input)
        body = input.read(int(env["CONTENT_LENGTH"]))
        head = "Content-Type: text/plain\r\n\r\n"
        output.write(head.encode() if mode else head)
        output.write(body)
        rest = input.read()
        output.close()
        input.close()
        conn.close()
        fact("rest", repr(rest))

    def echo_bytes(self, conn):
        self.echo(conn, "b")

    def both(self, conn):
        with conn.makefile("rw") as file:
            env = self.read_env(file)
            file.write("Content-Type: text/plain\r\n\r\n" + env["REQUEST_METHOD"])

    def utf8(self, conn):
        input = conn.makefile("rb")
        env = self.read_env(input)
        with conn.makefile("w", encoding="utf-8") as output:
            output.write("Content-Type: text/plain; charset=utf-8\n\n€ " + env["REQUEST_METHOD"])

    def lines(self, conn):
        input = conn.makefile("r")
        self.read_env(input)
        conn.sendall(b"Content-Type: text/plain\r\n\r\n" + repr(input.readlines()).encode())

    def unclosed(self, conn):
        output = conn.makefile("wb")
        output.write(b"Content-Type: text/plain\r\n\r\nnever closed")

    def file(self, conn):
        conn.sendall(b"Content-Type: text/plain\r\n\r\n")
        with open(__file__, "rb") as file:
            conn.sendfile(file, 3, 70_000)

    def closes_early(self, conn):
        conn.sendall(b"Content-Type: text/plain\r\n\r\nall of it")
        conn.close()
        os.read(os.open(os.path.join(os.environ["FACTS"], "gate"), os.O_RDONLY), 1)

    def exits(self, conn):
        with conn.makefile("wb") as output:
            output.write(b"Content-Type: text/plain\r\n\r\nlast words")
        conn.close()
        sys.exit()

    def raises(self, conn):
        raise LookupError("before output")

    def finally_closed(self, conn):
        output = conn.makefile("wb")
        try:
            output.write(b"Content-Type: text/plain\r\n\r\nhalf a page")
            raise LookupError("in the middle")
        finally:
            output.close()
            conn.close()

    def late(self, conn):
        conn.sendall(b"Content-Type: text/plain\r\n\r\nbegun")
        raise LookupError("after output")

    def nothing(self, conn):
        conn.close()

    def nph(self, conn):
        conn.sendall(b"HTTP/1.0 201 Made\r\nContent-Type: text/plain\r\n\r\nmade")

    def base(self, conn):
        SCGIHandler.handle_connection(self, conn)
        conn.close()

    def produce(self, env, bodysize, input, output):
        if env["QUERY_STRING"] == "raise":
            raise LookupError("in produce")
        output.write("Content-Type: text/plain\n\n")
        output.write(f"text from produce, {bodysize} bytes of body")


class Translated(SCGIHandler):
    """`read_env` that decodes what the web server sent."""

    def read_env(self, input):
        env = SCGIHandler.read_env(self, input)
        return {name: value.encode("latin-1").decode() for name, value in env.items()}

    def produce_cgilike(self, env, bodysize):
        print("Content-Type: text/plain; charset=utf-8\n")
        print(env["HTTP_X_NAME"], os.getenv("HTTP_X_NAME"), sys.stdin.read())
