"""The durable record of calls and accesses."""
