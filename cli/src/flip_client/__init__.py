"""The flip command and the Python client of a FLIP hub."""

from flip_client.hub import Hub
from flip_client.problem import Problem, Unreachable
from flip_client.trust import TrustOperator

__all__ = ["Hub", "Problem", "TrustOperator", "Unreachable"]
