"""What a server is to do: read from many places (`settings`), then turned into objects (`build`)."""
