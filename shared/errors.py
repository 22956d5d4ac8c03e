"""One tree of errors that says whose matter each is, and the catalogue of codes that users see.

`Refused` is the caller's: nothing will change until they change something. `Transient` is passing: trying again may help.
`Fault` is ours. The API answers any of them with the status of its code (`api/problems.py`); an attempt that raises one
ends by `outcome_of`. A code, once shipped, keeps its meaning.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """What is fixed about an error: its HTTP status, a title, and what the user can do."""

    status: int
    title: str
    advice: str


CODES: dict[str, Code] = {
    "malformed_json": Code(400, "The JSON could not be read", "Send one JSON object in UTF-8 as `application/json`, each field once."),
    "malformed_multipart": Code(400, "The form could not be read", "Send multipart/form-data with a boundary, and let your HTTP library build it."),
    "bad_cursor": Code(400, "The cursor is not one of ours", "Leave `cursor` out to start from the newest, or use the `next` of the page before."),
    "bad_id": Code(400, "The id is not a UUID", "Use the id exactly as the service gave it."),
    "key_required": Code(401, "A key is needed", "Send it as `Authorization: Bearer KEY`; `lacuna` takes it from LACUNA_KEY, and `lacunad keys add` makes one."),
    "key_refused": Code(403, "This key opens nothing", "It is mistyped or was revoked; `lacunad keys list` shows which there are."),
    "origin_refused": Code(403, "Requests from other sites are refused", "Open Lacuna's own address, or call the API from a program instead of a page."),
    "host_refused": Code(403, "This host name is not served", "Use a name listed in LACUNA_HOSTS, or add this one there."),
    "path_not_allowed": Code(403, "This folder may not be used", "Use one below what LACUNA_ROOTS allows, or add it there."),
    "job_not_found": Code(404, "There is no such job", "Check the id; deleted and expired jobs are gone."),
    "batch_not_found": Code(404, "There is no such batch", "Check the id; GET /v1/batches lists yours."),
    "model_not_found": Code(404, "There is no such model", "GET /v1/models lists what there is."),
    "preview_not_found": Code(404, "There is no such preview", "The job was sent no such file, or is older than previews are."),
    "artifact_not_found": Code(404, "There is no such file of the training", "GET /v1/jobs/{id}/artifacts lists what there is now."),
    "dataset_not_found": Code(404, "There is no such data set", "Check the id; GET /v1/datasets lists yours."),
    "folder_not_found": Code(404, "There is no such folder", "Check its name, as the machine sees it that Lacuna runs on."),
    "route_not_found": Code(404, "There is no such address", "GET /openapi.json lists every address."),
    "method_not_allowed": Code(405, "This method does not work here", "The `Allow` header lists the methods that do."),
    "upload_stalled": Code(408, "The upload stopped", "Send it again; the same Idempotency-Key is safe."),
    "not_ready": Code(409, "The job is not finished", "Wait with GET /v1/jobs/{id}?wait=60, then ask again."),
    "already_final": Code(409, "The job has already ended", "Nothing is left to cancel; its state tells how it ended."),
    "not_final": Code(409, "The job has not ended", "Cancel it first, or wait with GET /v1/jobs/{id}?wait=60."),
    "batch_not_open": Code(409, "The batch takes no more pictures", "Make a new one for what is left."),
    "batch_state": Code(409, "The batch is not in a state for this", "Its `state` tells what can be done: an open one is sealed, a running one paused, a paused one resumed."),
    "path_taken": Code(409, "The batch has a picture at this path already", "Give each picture a path of its own, or retry the job that is there."),
    "output_busy": Code(409, "Another run writes into this folder", "Wait for it, cancel it, or choose another place."),
    "no_result": Code(409, "This kind of job leaves no file", "What it did stands in the job itself."),
    "not_retried": Code(409, "This kind of job is not done again", "`detail` says what to do instead."),
    "model_exists": Code(409, "There is such a version already", "A version never changes: give the new one another number."),
    "in_use": Code(409, "It cannot be deleted", "`detail` says what needs it: move or remove that first."),
    "idempotency_in_progress": Code(409, "This request is still being received", "Try again after `Retry-After` seconds."),
    "result_expired": Code(410, "The result is no longer kept", "Restore the picture again."),
    "canceled": Code(410, "The job was canceled", "Submit the picture again if you want it after all."),
    "precondition_failed": Code(412, "It is not as you expected", "Look at what it is now, and decide again."),
    "range_not_satisfiable": Code(416, "The range lies outside the result", "Ask for bytes within the result's size."),
    "upload_too_large": Code(413, "The upload is too large", "Send a smaller file, or raise LACUNA_MAX_UPLOAD."),
    "unsupported_format": Code(415, "This kind of file is not restored", "Convert it to JPEG, PNG, TIFF, WebP or BMP with 8 or 16 bits a channel."),
    "image_empty": Code(422, "The file is empty", "Send the picture's bytes."),
    "image_truncated": Code(422, "The picture is cut off", "Copy or download the file again: its end is missing."),
    "image_bomb": Code(422, "The file unpacks to far more than it says", "Open it in an editor and save it anew; such files are made to harm."),
    "image_corrupt": Code(422, "The picture is damaged", "Open it in an editor and save it anew, or use another copy."),
    "too_many_pixels": Code(422, "The picture has too many pixels", "Scale or crop it, or raise LACUNA_MAX_PIXELS."),
    "multiple_frames": Code(422, "The file holds several pictures", "Split it: Lacuna restores one picture per file."),
    "mask_missing": Code(422, "Inpainting needs a mask", "Send a picture of the same size as `mask`; where it is not black, the picture is filled."),
    "mask_size": Code(422, "The mask has another size than the picture", "Draw it on the picture as it is displayed, and save it without scaling."),
    "mask_empty": Code(422, "The mask marks nothing", "Draw what is to be filled in any colour but black, on black."),
    "mask_full": Code(422, "The mask marks the whole picture", "Leave black what is to stay: the rest is filled from there. Perhaps the mask is inverted."),
    "reference_size": Code(422, "The reference has another size than the picture", "Send the same picture without its damage, neither cropped nor scaled."),
    "folder_unreadable": Code(422, "The folder cannot be looked into", "Let the user read it that Lacuna runs as."),
    "folder_empty": Code(422, "The folder holds no pictures", "Pictures are known by the endings of their names: jpg, png, tif, webp, bmp; `pattern` may leave them all out."),
    "folders_overlap": Code(422, "Input and output lie within each other", "Choose a place for the outputs beside the inputs."),
    "output_not_writable": Code(422, "The folder of outputs cannot be written to", "Let the user write there that Lacuna runs as, or choose another place."),
    "disk_too_small": Code(422, "The outputs will not fit on their disk", "Free space there, choose another disk, or restore fewer pictures at a time."),
    "file_gone": Code(422, "The file is gone", "It was moved or removed after the folder was listed; put it back and retry."),
    "file_unreadable": Code(422, "The file cannot be read", "Let the user read it that Lacuna runs as, and retry."),
    "file_changed": Code(422, "The file changed after the folder was listed", "Retry when nobody writes to it any more."),
    "link_refused": Code(422, "A link stands in its way", "Links are not followed; put the file or folder itself there."),
    "name_too_long": Code(422, "The output's name would be too long", "Shorten the picture's name, or keep its format, which adds no ending."),
    "output_exists": Code(422, "Another file is in the place of the output", "Move it away, or allow that it is replaced, and retry."),
    "output_taken": Code(422, "Two pictures would have the same output", "Restore one of them into another folder."),
    "archive_corrupt": Code(422, "The archive cannot be read", "Pack it anew as an ordinary zip, or send it again if it was cut off."),
    "archive_empty": Code(422, "The archive holds no pictures", "Pictures are known by the endings of their names: jpg, png, tif, webp, bmp; `pattern` may leave them all out."),
    "archive_encrypted": Code(422, "The archive is encrypted", "Pack it anew without a password."),
    "archive_traversal": Code(422, "The archive holds names that lead elsewhere", "Pack the files themselves, with paths below one folder: no links, no .., no backslashes, nothing from / or a drive on."),
    "archive_overlap": Code(422, "Files of the archive overlap", "Pack it anew, each file once; such archives are made to harm."),
    "archive_bomb": Code(422, "The archive unpacks to more than is taken", "`detail` says which limit it is: pack fewer or smaller pictures, or send them one by one."),
    "reference_missing": Code(422, "There is no reference for it", "Put it under the same name into the folder of references."),
    "unknown_task": Code(422, "There is no such task", "Use `denoise` or `inpaint`."),
    "unknown_model": Code(422, "There is no such model", "GET /v1/models lists what there is."),
    "model_task": Code(422, "The model does another task", "Leave `model` out to use the task's own, or change `task`."),
    "unknown_dataset": Code(422, "There is no such data set", "GET /v1/datasets lists yours."),
    "dataset_not_ready": Code(422, "The data set is not ready", "Wait for its job, or look at its report if it failed."),
    "dataset_faulty": Code(422, "Too much of the data set cannot be used", "GET /v1/datasets/{id}/report names every fault: mend them, and send it again."),
    "image_too_small": Code(422, "The picture is too small", "Leave it out: a training cuts its crops from pictures of at least 16 pixels a side."),
    "image_noisy": Code(422, "The picture is noisy, in a set of clean ones", "Leave it out; or send pictures that are all noisy as kind=noisy."),
    "pair_missing": Code(422, "A picture has no partner", "Put both under the same name, one into the folder `noisy`, one into `clean`."),
    "pair_size": Code(422, "The two of a pair have different sizes", "Save both uncropped and unscaled; they must lie on each other pixel by pixel."),
    "pair_misaligned": Code(422, "The two of a pair are shifted against each other", "Align them, or cut both so that every pixel shows the same spot."),
    "unknown_field": Code(422, "The request has a field that means nothing here", "Remove it; /docs lists the fields."),
    "invalid_field": Code(422, "A field has a value that cannot be used", "`errors` names the field and what it takes."),
    "idempotency_mismatch": Code(422, "This Idempotency-Key belongs to another request", "Use a new key for a new request."),
    "callbacks_not_offered": Code(422, "Callbacks are not offered", "Poll the job, or wait with ?wait=60."),
    "artifact_invalid": Code(422, "The model's files do not fit together", "Export the model again; weights and manifest must come from one export."),
    "too_many_jobs": Code(429, "Too many of your jobs wait", "Wait until some have ended, cancel some, or raise LACUNA_MAX_QUEUED."),
    "database_busy": Code(503, "The database did not answer in time", "Try again after `Retry-After` seconds."),
    "storage_full": Code(503, "The disk is nearly full", "Free space under LACUNA_HOME, or lower LACUNA_MIN_FREE."),
    "too_many_uploads": Code(503, "Too many uploads at once", "Try again after `Retry-After` seconds."),
    "too_many_downloads": Code(503, "Too many archives are sent at once", "Try again after `Retry-After` seconds, or fetch single results."),
    "too_many_streams": Code(503, "Too many event streams at once", "Close one, or poll the job with ?wait=60."),
    "shutting_down": Code(503, "The service is shutting down", "Try again after `Retry-After` seconds; the same Idempotency-Key is safe."),
    "worker_lost": Code(500, "The worker died at this job", "Try again; if it happens again, the file itself may be the cause."),
    "out_of_memory": Code(500, "The picture needs more memory than there is", "Raise LACUNA_MEMORY, or restore a smaller picture."),
    "timed_out": Code(500, "The job took too long", "Try again on a faster machine, or with a smaller file."),
    "training_diverged": Code(500, "The training's loss became infinite", "Train with a smaller learning rate."),
    "internal": Code(500, "Something went wrong on our side", "Try again; the log holds the cause under this request id."),
}  # fmt: skip


LONGEST_DETAIL = 600  # characters: what is quoted in it may be the user's, of any length


class LacunaError(Exception):
    """An error with a code from `CODES`, a sentence for the user, and the fields it is about."""

    def __init__(
        self, code: str, detail: str | None = None, *, fields: dict[str, str] | None = None, retry_after_s: int | None = None
    ) -> None:
        self.code = code
        self.kind = CODES[code]
        self.detail = (detail or self.kind.advice)[:LONGEST_DETAIL]
        self.fields = fields or {}
        self.retry_after_s = retry_after_s
        super().__init__(f"{code}: {self.detail}")


class Refused(LacunaError):
    """The caller's matter."""

    def of(self, part: str) -> "Refused":
        """The same of a part of the request beside the picture: it names the part."""
        return Refused(self.code, f"The {part}: {self.detail}", fields={part: self.kind.title}, retry_after_s=self.retry_after_s)


class Transient(LacunaError):
    """Passing: the same attempt may do better later."""


class Fault(LacunaError):
    """Ours."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ends that did not succeed."""

    code: str
    title: str
    detail: str
    retryable: bool


def outcome_of(error: BaseException) -> Outcome:
    """What an attempt that raised `error` becomes. An error we did not foresee is `internal`, and never shows its text."""
    if isinstance(error, MemoryError):
        error = Fault("out_of_memory")
    if isinstance(error, LacunaError):
        return Outcome(error.code, error.kind.title, error.detail, isinstance(error, Transient))
    if isinstance(error, OSError) and error.errno is not None:  # the system's; a library's own has no number
        return Outcome(
            "internal",
            CODES["internal"].title,
            "The storage did not answer. Try again; the log holds the cause under this request id.",
            True,
        )
    return Outcome("internal", CODES["internal"].title, CODES["internal"].advice, False)
