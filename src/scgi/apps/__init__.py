"""Adapters: what stands between a parsed request and an application. Imports `net`, `status`, `protocol`, `errors`.

An adapter is called as ``adapter.answer(slot, fd, variables, length, body)``: the worker's slot, the connection's
descriptor, the request's variables, the body's length in bytes and the body as a binary file that ends where the body
does. It sends the whole answer and returns how the connection is to be closed, an `Outcome`. No exception of an
application leaves it, except those that are meant to end the worker.
"""
