"""Faults on the real backbone, and a checker that decides from the histories whether it kept its promises."""
