"""Asking an SCGI server something: the exchange of bytes, and (above it) the pumps that move them.

May import net, protocol and errors.
"""
