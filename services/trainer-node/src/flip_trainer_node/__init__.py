"""A net: the controller at the hub and the worker at a Trust."""
