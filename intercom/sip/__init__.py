"""The SIP side: one thread that owns pjsua2, and what the rest of the program sees of it."""
