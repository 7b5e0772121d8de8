"""The real parts of the stack, one module each: what runs, with which settings, and why those."""
