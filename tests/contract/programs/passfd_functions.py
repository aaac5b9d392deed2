"""A file's descriptor passed to another process, which reads the file."""

import os
import tempfile

from scgi import passfd

ours, theirs = passfd.socketpair(1, 1)  # AF_UNIX, SOCK_STREAM
if os.fork() == 0:
    fd = passfd.recvfd(theirs)
    with os.fdopen(fd, "rb") as file:
        os.write(theirs, b"read: " + file.readline())
    os._exit(0)

with tempfile.TemporaryFile() as file:
    file.write(b"a line\n")
    file.flush()
    file.seek(0)
    print("sent:", passfd.sendfd(ours, file.fileno()))
print(os.read(ours, 100).decode(), end="")
os.wait()
os.close(theirs)
for name, call in (("sent to nobody", passfd.sendfd), ("received from nobody", lambda fd, _: passfd.recvfd(fd))):
    try:
        call(ours, 0)
        print(name)
    except OSError:
        print(name + ": raises OSError")
