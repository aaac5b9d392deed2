# shop/production.py
from pathlib import Path

from .settings import *  # noqa: F403

DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
STATIC_URL = "/static/"
STATIC_ROOT = Path(__file__).parent.parent / "static"
