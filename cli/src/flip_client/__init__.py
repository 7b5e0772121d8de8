"""The flip command and the Python client of a FLIP hub."""
