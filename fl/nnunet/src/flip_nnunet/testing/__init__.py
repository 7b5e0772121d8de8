"""Tests that every framework's binding has to pass, over a net of its own on one machine."""
