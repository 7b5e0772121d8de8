"""A trainer that FLARE has forgotten to end."""

import signal

signal.sigwait({signal.SIGUSR1})
