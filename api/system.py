"""What Lacuna runs on."""

from importlib.metadata import version

from flask import Blueprint, Response, current_app, json

from api.routes import Routes
from api.schemas import DiskView, LaneView, NoQuery, SystemView, WorkerView, timestamp
from api.wiring import Ports
from shared import disk
from shared.jobs.job import PATIENT

routes = Routes(Blueprint("system", __name__))


@routes.add("GET", "/v1/system", {200: SystemView}, query=NoQuery, problems=("unknown_field", "database_busy"))
def system() -> Response:
    """The workers there are, what they run networks with, what waits for them, and the disk."""
    ports: Ports = current_app.extensions["lacuna"]()
    living = ports.workers.list()
    workers = [WorkerView(**vars(seen) | {"started_at": timestamp(seen.started_at), "seen_at": timestamp(seen.seen_at)}) for seen in living]
    lanes = []
    for lane in ports.jobs.backlog():
        heard = sum(lane.lane in seen.lanes for seen in living)
        seconds = None if lane.seconds is None else lane.seconds / max(1, heard)
        paused = "storage_full" if lane.lane in PATIENT and disk.nearly_full(ports.settings) else None
        shown = {"jobs": lane.jobs, "pixels": lane.pixels, "oldest_s": lane.oldest_seconds, "backlog_s": seconds, "paused": paused}
        lanes.append(LaneView.model_validate({"name": lane.lane, **shown}))
    space = DiskView(free=disk.free(ports.settings), min_free=ports.settings.min_free)
    view = SystemView(version=version("lacuna"), workers=workers, lanes=lanes, disk=space)
    return Response(json.dumps(view.model_dump(mode="json")), content_type="application/json")
