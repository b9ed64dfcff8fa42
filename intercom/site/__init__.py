"""The SIP server of a site: its settings, its users, and Kamailio that serves them."""
