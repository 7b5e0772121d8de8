"""What FLIP says on the bus: events, commands, reports and the topic catalogue."""
