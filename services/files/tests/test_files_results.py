"""Results of runs: scanned by a real ClamAV, kept in a real object store, given only to those who may have them."""

import io
from hashlib import sha256

import httpx
import pytest
from flip_chassis.ids import uuid7
from flip_chassis.testing import eventually, refused, speaking
from flip_contracts.base import ProjectId, RunId, UserId
from flip_contracts.files import ResultsPublished, ResultsRefused
from flip_contracts.trainer_node import ResultsCollected
from flip_files import domain

from .conftest import Files

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
CLEAN = b"a zip, as far as anybody here cares" * 1000


def collected(content: bytes, project_id: ProjectId, digest: str | None = None) -> ResultsCollected:
    run_id = RunId(uuid7())
    return ResultsCollected(
        run_id=run_id,
        project_id=project_id,
        attempt=1,
        fencing=1,
        object=f"test/{run_id}.zip",
        name="deep-nuclei_nnunet_2d.zip",
        digest=digest or sha256(content).hexdigest(),
        size_bytes=len(content),
    )


# --- the verdict, pure ----------------------------------------------------------------------------------------------

WHAT = collected(CLEAN, ProjectId(uuid7()))


def scan(found: str | None = None, digest: str = WHAT.digest) -> domain.Scan:
    return domain.Scan("ClamAV 1.4.6", "local", found, digest)


def test_clean_results_are_published_with_the_engine_that_looked():
    verdict = domain.judge(domain.Result(), WHAT, scan())
    assert isinstance(verdict, ResultsPublished)
    assert (verdict.engine, verdict.signatures, verdict.digest) == ("ClamAV 1.4.6", "local", WHAT.digest)


@pytest.mark.parametrize(
    ("verdict", "reason"), [(scan("Eicar"), "malware-found"), (scan(digest="ab" * 32), "digest-differs")]
)
def test_infected_results_and_results_other_than_those_collected_are_withheld(verdict: domain.Scan, reason: str):
    said = domain.judge(domain.Result(), WHAT, verdict)
    assert isinstance(said, ResultsRefused)
    assert said.reason == reason
    withheld = domain.evolve(domain.Result(), said)
    with refused("results-withheld", status="refused"):
        domain.download(withheld, WHAT.run_id, UserId(uuid7()))


def test_results_are_judged_once():
    published = domain.judge(domain.Result(), WHAT, scan())
    assert published is not None
    assert domain.judge(domain.evolve(domain.Result(), published), WHAT, scan("Eicar")) is None


# --- on real parts --------------------------------------------------------------------------------------------------


async def collect(files: Files, content: bytes) -> ResultsCollected:
    """A net has put a run's results into the store, and says so."""
    what = collected(content, files.project_id)
    files.store.put_object(files.bucket, what.object, io.BytesIO(content), len(content))
    async with speaking(files.kafka.as_principal("service.trainer-node"), "flip/hub/trainer-node") as net:
        await net.say(what)
    return what


async def judged(files: Files, what: ResultsCollected) -> httpx.Response:
    """What the owner sees of the results, once they are judged."""

    async def look() -> httpx.Response | None:
        answer = await files.http.get(f"/api/files/results/{what.run_id}", headers=files.token(files.owner))
        return answer if answer.status_code == 200 else None

    return await eventually(look)


@pytest.mark.parts
@pytest.mark.requirement("RUN-7")
async def test_clean_results_are_downloaded_as_they_were_collected_and_the_download_is_recorded(files: Files):
    what = await collect(files, CLEAN)
    view = (await judged(files, what)).json()
    assert (view["status"], view["name"], view["size_bytes"]) == ("published", what.name, len(CLEAN))
    answer = await files.http.get(f"/api/files/results/{what.run_id}/download", headers=files.token(files.owner))
    assert answer.content == CLEAN
    assert what.name in answer.headers["Content-Disposition"]
    assert answer.headers["Flip-Version"] == f"flip.files.result/{what.run_id}@2"


@pytest.mark.parts
async def test_infected_results_are_withheld_from_their_owner(files: Files):
    what = await collect(files, EICAR)
    assert (await judged(files, what)).json()["status"] == "refused"
    answer = await files.http.get(f"/api/files/results/{what.run_id}/download", headers=files.token(files.owner))
    assert (answer.status_code, answer.json()["code"]) == (409, "results-withheld")


@pytest.mark.parts
async def test_a_stranger_is_not_told_that_the_results_exist(files: Files):
    what = await collect(files, CLEAN)
    await judged(files, what)
    for path in (f"/api/files/results/{what.run_id}", f"/api/files/results/{what.run_id}/download"):
        answer = await files.http.get(path, headers=files.token(files.stranger))
        assert (answer.status_code, answer.json()["code"]) == (404, "project-not-found")


@pytest.mark.parts
async def test_a_run_without_results_says_so(files: Files):
    answer = await files.http.get(f"/api/files/results/{uuid7()}", headers=files.token(files.owner))
    assert (answer.status_code, answer.json()["code"]) == (404, "results-not-found")
