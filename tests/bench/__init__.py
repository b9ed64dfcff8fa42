"""Measures the station against the least script with the same library, and against the limits of the design.

    python -m tests.bench [press idle start soak flood]

Rule: whatever is compared runs on the same machine in the same run, by turns.
"""
