"""Answers as `flip_flare.driver` does, from `net.json` beside the jobs: `sites`, and `jobs` by id.

`refuses.json` beside it, if it is there, has the codes of refusals by operation.
"""

import json
import sys
from pathlib import Path
from typing import Any

net = Path(sys.argv[sys.argv.index("--jobs") + 1]).with_name("net.json")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    known = json.loads(net.read_text())
    jobs = known["jobs"]
    match request["op"]:
        case "connected":
            return {"sites": known["sites"]}
        case "running":
            return {"jobs": [job for job, of in jobs.items() if of["state"] == "running"]}
        case "submit":
            job = f"job-{request['run_id']}.{request['attempt']}"
            jobs.setdefault(job, {**request, "state": "running"})
            write(known)
            return {"job": job}
        case "abort":
            if jobs[request["job"]]["state"] == "running":
                jobs[request["job"]]["state"] = "aborted"
                write(known)
    return {"job": request["job"], "state": jobs[request["job"]]["state"]}


def write(known: dict[str, Any]) -> None:
    draft = net.with_name(".net.json.driver")
    draft.write_text(json.dumps(known))
    draft.replace(net)


def reply(request: dict[str, Any]) -> dict[str, Any]:
    refuses = net.with_name("refuses.json")
    code = json.loads(refuses.read_text()).get(request["op"]) if refuses.exists() else None
    if code is not None:
        return {"ok": False, "error": {"code": code, "detail": "scripted"}}
    return {"ok": True, "result": answer(request)}


for line in sys.stdin:
    asked = json.loads(line)
    sys.stdout.write(json.dumps({"id": asked["id"], **reply(asked)}) + "\n")
    sys.stdout.flush()
