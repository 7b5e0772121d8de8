"""A process that lives until it is told to stop."""

import signal

signal.sigwait({signal.SIGTERM})
