"""The operating system around the service: where files lie, and what systemd is told."""
