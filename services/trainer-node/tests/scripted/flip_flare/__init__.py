"""Stands in for `flip_flare` where a test writes its part itself: same command lines, same lines of JSON."""
