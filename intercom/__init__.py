"""A SIP door station: who rings whom, who may open, and what is said about it."""

__version__ = "0.1.0"
