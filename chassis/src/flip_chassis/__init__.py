"""What every FLIP service shares: event log, relay, inbox, HTTP, access, telemetry."""
