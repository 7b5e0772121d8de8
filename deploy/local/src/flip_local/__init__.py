"""The local stack: every part FLIP needs, real, on the loopback address."""
