"""What a server has to stand under load; in short a test of `tests/promises`, in full what `make soak` runs."""
