"""Stands in for `flip_flare` where a test writes FLARE's part itself: same command lines, same lines of JSON."""
