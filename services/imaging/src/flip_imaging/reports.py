"""What a Trust tells the hub of a project: counts that its disclosure rule lets out, reasons, and nothing twice."""

from flip_chassis.work import Work
from flip_contracts.base import ProjectId
from flip_contracts.imaging import (
    StudyCounts,
    TrustImagesReady,
    TrustImportFailed,
    TrustImportProgressed,
    TrustRegisteredDataset,
    TrustRegisteredLabels,
    TrustWithdrewDataset,
)

from flip_imaging import store
from flip_imaging.disclosure import release


async def tell_import(work: Work, project_id: ProjectId, threshold: int) -> None:
    """Report where the project's import stands, where that has changed for the hub's eyes.

    The caller holds the project's lock, so that the last report is the latest. While a ready data set stands in for the
    studies, nothing is said of them.
    """
    if await store.dataset(work.db, project_id) is not None:
        return
    counts = await store.counts(work.db, project_id)
    released = release(counts, threshold)
    if await _is_new(work, project_id, "counts", released):
        await work.say(TrustImportProgressed(project_id=project_id, counts=StudyCounts(**released)))
    await _tell_failures(work, project_id, threshold)
    if not any(counts[state] for state in ("queued", "importing", "failed")):
        ends = release({"imported": counts["imported"], "failed": counts["capped"]}, threshold)
        if await _is_new(work, project_id, "ready", ends):
            await work.say(TrustImagesReady(project_id=project_id, **ends))
    else:
        await store.forget_told(work.db, project_id, "ready")


async def _tell_failures(work: Work, project_id: ProjectId, threshold: int) -> None:
    before = await store.told(work.db, project_id, "failures") or {}
    now = release(dict.fromkeys(before, 0) | await store.failures(work.db, project_id), threshold)
    await store.keep_told(work.db, project_id, "failures", now)
    for reason, studies in now.items():
        if before.get(reason) != studies:
            await work.say(TrustImportFailed(project_id=project_id, reason=reason, studies=studies))


async def tell_labels(work: Work, project_id: ProjectId, threshold: int) -> None:
    """Report how many imported studies have a label. The caller holds the project's lock."""
    cases = await store.cases(work.db, project_id)
    with_label = sum(case.label_sha256 is not None for case in cases)
    released = release({"with": with_label, "without": len(cases) - with_label}, threshold)
    labels = await store.labels(work.db, project_id)
    if await _is_new(work, project_id, "labels", {"labelled": released["with"], "labels": labels}):
        await work.say(TrustRegisteredLabels(project_id=project_id, labelled=released["with"], labels=labels))


async def tell_dataset(work: Work, project_id: ProjectId, threshold: int) -> None:
    """Report the ready data set that was just registered; its cases are images that are there, and all have labels.

    The caller holds the project's lock.
    """
    dataset = await store.dataset(work.db, project_id)
    if dataset is None:
        raise LookupError("no data set is registered")
    cases = release({"cases": dataset.cases}, threshold)["cases"]
    await work.say(
        TrustRegisteredDataset(
            project_id=project_id,
            cases=cases,
            channels=dataset.channels,
            labels=dataset.labels,
            dataset_sha256=dataset.dataset_sha256,
        )
    )
    await work.say(TrustImagesReady(project_id=project_id, imported=cases, failed=0))
    await work.say(TrustRegisteredLabels(project_id=project_id, labelled=cases, labels=dataset.labels))
    for kind in ("counts", "ready", "labels"):  # the hub is told anew of the studies, once they count again
        await store.forget_told(work.db, project_id, kind)


async def tell_withdrawal(work: Work, project_id: ProjectId, threshold: int) -> None:
    """Report that the data set was given up, and how the studies stand. The caller holds the project's lock."""
    await work.say(TrustWithdrewDataset(project_id=project_id))
    await tell_import(work, project_id, threshold)
    await tell_labels(work, project_id, threshold)


async def _is_new(work: Work, project_id: ProjectId, kind: str, said: object) -> bool:
    if await store.told(work.db, project_id, kind) == said:
        return False
    await store.keep_told(work.db, project_id, kind, said)
    return True
