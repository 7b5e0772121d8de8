"""Runs a Trust's trainers in a box: no network, only what they need to read and write, limits on what they use.

    Popen(boxed(command, Box(readable=(data,), writable=(work,)), SandboxSettings()))

The *warden* (`warden`) is the process that the caller starts and ends; it lives outside the box, watches what the box
uses and ends it with all that is in it. A *confinement* (`bubblewrap`, `pod`) draws the walls. The *entrance*
(`entrance`) is the first program inside; it sets the limits that the kernel keeps, and becomes the command.
"""

from flip_nnunet.sandbox.box import Box, boxed
from flip_nnunet.sandbox.confinement import check
from flip_nnunet.sandbox.ending import Ending, ending_of
from flip_nnunet.sandbox.port import SandboxUnavailable
from flip_nnunet.sandbox.settings import SandboxSettings

__all__ = ["Box", "Ending", "SandboxSettings", "SandboxUnavailable", "boxed", "check", "ending_of"]
