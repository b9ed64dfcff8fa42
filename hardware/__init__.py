"""Drivers for what is wired to the door. Rule: this package knows nothing of `intercom` and of asyncio."""
