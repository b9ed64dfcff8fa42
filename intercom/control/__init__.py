"""The local control interface: HTTP over a Unix socket."""
