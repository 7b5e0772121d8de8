"""nginx in front of the hub: TLS, `/api/<service>/`, request ids, problem documents, and limits."""

from __future__ import annotations

import json

from flip_local import pki
from flip_local.layout import HUB, HUB_SERVICES, Layout
from flip_local.part import HttpProbe, Part

_PROBLEMS = {
    404: ("no-such-page", "There is nothing at this address."),
    413: ("body-too-large", "The request's body is larger than this route takes."),
    429: ("too-many-attempts", "Wait a moment before the next attempt."),
    502: ("service-unavailable", "The service behind this route isn't up. Try again in a moment."),
    503: ("service-unavailable", "The service behind this route isn't ready. Try again in a moment."),
    504: ("service-timeout", "The service behind this route didn't answer in time."),
}
_RETRY_AFTER_S = {429: 1, 502: 2, 503: 2}

_UPLOADS = {"files": "5g"}
"""Services whose routes take more than the megabyte that every route takes."""

# `add_header` in a location drops the server's own: every place that adds one repeats these.
_HEADERS = """\
add_header X-Content-Type-Options nosniff always;
add_header X-Frame-Options DENY always;
add_header Referrer-Policy same-origin always;
add_header Strict-Transport-Security max-age=31536000 always;
add_header X-Request-Id $request_id always;
"""

_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log access.log;
  client_body_temp_path tmp/body;
  proxy_temp_path tmp/proxy;
  fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi;
  scgi_temp_path tmp/scgi;
  default_type application/octet-stream;
  server_tokens off;
  keepalive_timeout 65s;

  # The demo and the tests log in often; production sets a rate that fits people.
  limit_req_zone $binary_remote_addr zone=login:1m rate=20r/s;
  limit_req_status 429;

{upstreams}
  proxy_http_version 1.1;
  # Only a client that asks for an upgrade gets one: any other value would break kept connections.
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  proxy_set_header Host $http_host;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto https;
  proxy_set_header X-Request-Id $request_id;
  proxy_hide_header X-Request-Id;
  # Server-sent events must not wait in a buffer; services send something at least every minute.
  proxy_buffering off;
  proxy_read_timeout 120s;

  server {{
    listen 127.0.0.1:{port} ssl;
    server_name localhost;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:1m;
    client_max_body_size 1m;
    include headers.conf;

    location = /health {{ default_type application/json; return 200 '{{"status":"live"}}'; }}
    location = /api/auth/login {{ limit_req zone=login burst=40 nodelay; proxy_pass http://auth; }}
{routes}
    location / {{ return 404; }}

{problems}
  }}
}}
"""


def parts(layout: Layout) -> list[Part]:
    """The gateway."""
    folder = layout.folder(HUB, "gateway")
    port = layout.port("gateway")
    return [
        Part(
            name="gateway",
            command=("nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"),
            ready=HttpProbe(f"https://127.0.0.1:{port}/health", ca=layout.ca),
            ports=(port,),
            folders=(folder / "tmp",),
            files={folder / "nginx.conf": configuration(layout), folder / "headers.conf": _HEADERS},
        )
    ]


def configuration(layout: Layout) -> str:
    """nginx's configuration; relative paths in it are under the gateway's folder."""
    names = (*HUB_SERVICES, *(net.name for net in layout.nets))
    return _CONFIGURATION.format(
        port=layout.port("gateway"),
        certificate=layout.certificate(pki.GATEWAY),
        upstreams="".join(_upstream(name, layout.port(name)) for name in names),
        routes="".join(
            [_route(name, f"/api/{name}") for name in HUB_SERVICES] + [_route_to_net(net.name) for net in layout.nets]
        ),
        problems="".join(_problem(status) for status in _PROBLEMS),
    )


def _upstream(name: str, port: int) -> str:
    return f"  upstream {name} {{ server 127.0.0.1:{port} max_fails=0; keepalive 8; }}\n"


def _route(upstream: str, path: str) -> str:
    size = _UPLOADS.get(upstream)
    upload = f"client_max_body_size {size}; proxy_request_buffering off; " if size else ""
    return f"    location {path} {{ {upload}proxy_pass http://{upstream}; }}\n"


def _route_to_net(net: str) -> str:
    return f"    location /api/trainer-node/{net}/ {{ proxy_pass http://{net}/api/trainer-node/; }}\n"


def _problem(status: int) -> str:
    code, detail = _PROBLEMS[status]
    body = {
        "type": f"urn:flip:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "instance": "urn:uuid:$request_id",
    }
    wait = _RETRY_AFTER_S.get(status)
    retry = f"add_header Retry-After {wait} always; " if wait else ""
    # Quoted for nginx: the detail may hold an apostrophe.
    text = json.dumps(body).replace("'", "\\'")
    return (
        f"    error_page {status} @problem{status};\n"
        f"    location @problem{status} {{\n"
        f"      internal; default_type application/problem+json; include headers.conf; {retry}\n"
        f"      return {status} '{text}';\n"
        f"    }}\n"
    )
