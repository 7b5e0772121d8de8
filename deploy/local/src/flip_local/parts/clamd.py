"""ClamAV's daemon with one signature of its own, which knows the EICAR test string.

The public signature database takes over 1 GiB of memory and a download; production mounts it.
"""

from __future__ import annotations

from flip_local.layout import HUB, Layout
from flip_local.part import Part, TcpProbe

LARGEST_FILE_MIB = 2000

# The test string, in hex: as plain text it would make a scanner remove this very file.
_EICAR = (
    "58354f2150254041505b345c505a58353428505e2937434329377d24454943415"
    "22d5354414e444152442d414e544956495255532d544553542d46494c452124482b482a"
)


def parts(layout: Layout) -> list[Part]:
    """The scanner."""
    folder = layout.folder(HUB, "clamd")
    port = layout.port("clamd")
    return [
        Part(
            name="clamd",
            command=("clamd", f"--config-file={folder / 'clamd.conf'}"),
            ready=TcpProbe(port),
            ports=(port,),
            folders=(folder / "tmp",),
            files={
                folder / "clamd.conf": _configuration(layout),
                folder / "db" / "local.ndb": f"Eicar-Test-Signature-Local:0:*:{_EICAR}\n",
            },
        )
    ]


def _configuration(layout: Layout) -> str:
    folder = layout.folder(HUB, "clamd")
    settings = {
        "DatabaseDirectory": folder / "db",
        "TemporaryDirectory": folder / "tmp",
        "TCPAddr": "127.0.0.1",
        "TCPSocket": layout.port("clamd"),
        "Foreground": "yes",
        "StreamMaxLength": f"{LARGEST_FILE_MIB}M",
        "MaxScanSize": f"{LARGEST_FILE_MIB}M",
        "MaxFileSize": f"{LARGEST_FILE_MIB}M",
        "MaxScanTime": 600_000,
        "MaxRecursion": 10,
        "MaxFiles": 20000,
        "MaxThreads": 4,
        # Without it a file over a limit is called clean.
        "AlertExceedsMax": "yes",
        "SelfCheck": 0,
        "Bytecode": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())
