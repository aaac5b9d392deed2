"""Whether a test can have a machine of its own: folders of this one with a layer over them, gone when it ends."""

from __future__ import annotations

import os
import subprocess
from functools import cache

from support.programs import require_program

NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child")
_PROBE = """
mount -t tmpfs probe /mnt && mkdir /mnt/upper /mnt/work &&
mount -t overlay probe -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
"""


@cache
def reason_against_machines() -> str:
    """Why there can be none here; "" if there can."""
    for name in ("unshare", "ip", "curl", "a2enmod"):
        require_program(name)
    if os.geteuid() != 0:
        return "only root can have a layer over the folders of this machine"
    done = subprocess.run([*NAMESPACES, "sh", "-c", _PROBE], capture_output=True, text=True)
    return f"the kernel refuses layers over folders here: {done.stderr.strip()}" if done.returncode else ""
