"""Two Orthancs a Trust: the hospital's PACS, and FLIP's archive of de-identified images.

Debian's Orthanc listens on every interface and can't be told otherwise, so each runs in a network of its own. Its HTTP
asks for a password; its DICOM port takes no association but from the titles below.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from flip_local.credentials import Credentials
from flip_local.layout import Layout
from flip_local.part import HttpProbe, Part
from flip_local.task import task

Server = Literal["pacs", "archive"]

_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def title(server: Server, trust: str) -> str:
    """The DICOM application entity title of a Trust's PACS or archive."""
    return f"{trust}_{server.upper()}"


def importer_title(trust: str) -> str:
    """The title under which a Trust's imaging service calls its PACS."""
    return f"FLIP_{trust}"


def parts(layout: Layout) -> list[Part]:
    """PACS and archive of each Trust."""
    servers: tuple[Server, ...] = ("pacs", "archive")
    return [_server(layout, server, trust) for trust in layout.trusts for server in servers]


def _server(layout: Layout, server: Server, trust: str) -> Part:
    folder = layout.folder(trust, server)
    port = layout.port(f"{server}-{trust}")
    dicom_port = layout.port(f"{server}-dicom-{trust}")
    callees = (layout.port(f"{_other(server)}-dicom-{trust}"), layout.port(f"importer-dicom-{trust}"))
    ports = ("--inward", str(port), str(dicom_port), "--outward", *map(str, callees))
    configuration = folder / "orthanc.json"
    return Part(
        name=f"{server}-{trust}",
        command=task("flip_local.enclosure", *ports, "--", "Orthanc", str(configuration)),
        # It asks for a password, so it is up.
        ready=HttpProbe(f"http://127.0.0.1:{port}/system", statuses=frozenset({401})),
        ports=(port, dicom_port),
        folders=(folder / "storage",),
        files={configuration: json.dumps(_configuration(layout, server, trust), indent=1)},
        # Debian's DCMTK leaves Nagle's algorithm on: 11 instances a second without this, some hundreds with it.
        environment={"TCP_NODELAY": "1"},
        stop_s=20,
    )


def _configuration(layout: Layout, server: Server, trust: str) -> dict[str, Any]:
    storage = str(layout.folder(trust, server, "storage"))
    user, password = Credentials(layout).orthanc(server, trust)
    return {
        "Name": title(server, trust),
        "StorageDirectory": storage,
        "IndexDirectory": storage,
        "Plugins": [_DICOMWEB],
        "HttpPort": layout.port(f"{server}-{trust}"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {user: password},
        "DicomAet": title(server, trust),
        "DicomPort": layout.port(f"{server}-dicom-{trust}"),
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": False,
        "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowGet": False,
        "DicomAlwaysAllowMove": False,
        "DicomModalities": _modalities(layout, server, trust),
        "SynchronousCMove": True,
        "OverwriteInstances": True,
        "StableAge": 2,
        "SaveJobs": False,
        "ConcurrentJobs": 2,
        "HttpThreadsCount": 10,
        "DicomThreadsCount": 4,
        "LimitFindResults": 0,
        "KeepAlive": True,
        "WebDavEnabled": False,
        "ExecuteLuaEnabled": False,
        "DefaultEncoding": "Utf8",
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "PublicRoot": "/dicom-web/", "EnableWado": False},
    }


def _modalities(layout: Layout, server: Server, trust: str) -> dict[str, Any]:
    """Who may call: the other of the Trust's two servers, by which C-MOVE brings studies, and the importer."""
    other = _other(server)
    may_all = {"AllowEcho": True, "AllowFind": True, "AllowGet": True, "AllowMove": True, "AllowStore": True}
    receives = {"AllowEcho": True, "AllowFind": False, "AllowGet": False, "AllowMove": False, "AllowStore": False}
    sends = {**receives, "AllowStore": True}

    def modality(aet: str, port: str, rights: dict[str, bool]) -> dict[str, Any]:
        return {"AET": aet, "Host": "127.0.0.1", "Port": layout.port(f"{port}-{trust}"), **rights}

    return {
        other: modality(title(other, trust), f"{other}-dicom", sends if server == "archive" else receives),
        "importer": modality(importer_title(trust), "importer-dicom", may_all),
    }


def _other(server: Server) -> Server:
    return "archive" if server == "pacs" else "pacs"
