# shop.py
import hashlib

from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def page():
    return f"Hello from {request.script_root or 'the root'}\n"


@app.post("/upload")
def upload():
    digest, size = hashlib.sha256(), 0
    while piece := request.stream.read(1 << 20):
        digest.update(piece)
        size += len(piece)
    return f"{size} {digest.hexdigest()}\n"


@app.get("/numbers")
def numbers():
    return (f"{number}\n" for number in range(100_000)), {"Content-Type": "text/plain"}
