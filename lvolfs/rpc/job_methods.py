"""Jobs of a store: list, wait, cancel, change the rate."""

import errno
from typing import Annotated, Any

import pydantic

from lvolfs.delta import jobs
from lvolfs.report import documents
from lvolfs.rpc.table import U64, own_method
from lvolfs.rpc.target import Target

MAX_WAIT = 3600.0


def _job(target: Target, number: int, lvs_name: str | None) -> jobs.Job:
    return jobs.registry(target.only_store(lvs_name)).get(number)


@own_method("lvolfs_get_jobs")
def get_jobs(target: Target, *, lvs_name: str | None = None) -> list[dict[str, Any]]:
    store = target.only_store(lvs_name)
    return [documents.job_document(job) for job in jobs.registry(store).list()]


@own_method("lvolfs_get_job")
def get_job(target: Target, *, id: U64, lvs_name: str | None = None) -> dict[str, Any]:
    return documents.job_document(_job(target, id, lvs_name))


@own_method("lvolfs_wait_job", takes_long=True)
def wait_job(
    target: Target,
    *,
    id: U64,
    timeout: Annotated[float, pydantic.Field(ge=0, le=MAX_WAIT, strict=False)] = MAX_WAIT,
    lvs_name: str | None = None,
) -> dict[str, Any]:
    """The job once it has ended, or as it is after `timeout` seconds."""
    job = _job(target, id, lvs_name)
    job.wait(timeout)
    return documents.job_document(job)


@own_method("lvolfs_cancel_job")
def cancel_job(target: Target, *, id: U64, lvs_name: str | None = None) -> dict[str, Any]:
    job = _job(target, id, lvs_name)
    jobs.registry(target.only_store(lvs_name)).cancel(id)
    return documents.job_document(job)


@own_method("lvolfs_set_job_rate")
def set_job_rate(
    target: Target, *, id: U64, rate: U64, lvs_name: str | None = None
) -> dict[str, Any]:
    """Changes how many bytes per second a running job may move, at once; 0 = no limit."""
    job = _job(target, id, lvs_name)
    if job.finished:
        raise OSError(errno.ESRCH, f"job {id} has ended already: {job.state}")
    job.control.rate = rate
    return documents.job_document(job)
