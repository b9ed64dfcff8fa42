"""The pure core: what has happened goes in, what is to be done comes out; no clock, no I/O, no log."""
