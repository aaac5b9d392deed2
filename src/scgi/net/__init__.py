"""Addresses and listening sockets. Imports `errors` only."""
