"""The compiled part of pjsua2; only where it lies is of use."""
