"""One attempt at making a data set: every picture is decoded, checked and stored, and every fault is reported at once.

First all headers are read: then it is known who belongs to whom and how much room it takes. Then picture after picture is decoded,
looked at, and written; at the end the index, synced with the pixels before the commit that makes the set ready. It may die anywhere:
the next attempt starts anew under keys of its own, and the sweeper takes what the row does not name.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from shared import disk, events
from shared.blobs.store import Draft
from shared.datasets import checks, packed
from shared.datasets.packed import INDEX, PIXELS, Index, Stored
from shared.datasets.store import Contents
from shared.errors import Refused, Transient
from shared.folders import inputs, names
from shared.imaging import codec, header
from shared.imaging.pixels import Pixels
from shared.jobs.job import DATASET, Success, blob_key
from shared.trainings.recipe import split_key
from worker.collected import Collection, collected, is_picture, size_of
from worker.committer import Committer
from worker.ending import end
from worker.findings import Findings, report
from worker.keeper import Held
from worker.listing import LISTING_SECONDS
from worker.patience import until_answered
from worker.wiring import Ports

FEWEST = 2  # pictures of a set: one to learn from, one to measure with
READING_SECONDS = 900.0  # of one picture, from a slow disk or unpacked: this only tells the hung from the slow
SECONDS_PER_MPX = 60.0
NAMED = 50  # of pictures that look alike, in a report
STRIP_BYTES = 4 << 20  # written at once
NOISY, CLEAN = "noisy", "clean"  # folders of a paired set


def ingest_dataset(held: Held, ports: Ports, committer: Committer) -> None:
    """Look through it, store it, commit; let the archive go unless another attempt may follow."""
    job = held.job
    began = time.monotonic()
    held.begin(LISTING_SECONDS)
    try:
        with collected(job, ports, held.check) as files, _drafted(ports) as pixels:
            ingest = Ingest(held, ports, files, pixels)
            images = ingest.run()
            counts, told = report(ingest.findings, images)
            _require_enough(held, ports, counts, told, ingest.findings)
            keys = [blob_key(job.input[DATASET], f"{part}.{job.token}") for part in (INDEX, PIXELS)]
            contents = Contents(packed.of_set(image.sha256 for image in images), len(images), told["pixels"], 0, *keys)
            with _drafted(ports) as index:  # made only now: drafts to which nothing is written for an hour are swept
                for line in Index(job.input["kind"], contents.sha256, images).lines():
                    index.write(line)
                index.place(contents.index_key)
            pixels.place(contents.pixels_key)
            contents = replace(contents, bytes=index.size + pixels.size)
        ports.blobs.sync(keys)
        result = {
            "bytes": contents.bytes, "sha256": contents.sha256, "images": contents.images, "pixels": contents.pixels,
            "skipped": counts["skipped"], "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        held.conclude()
        alongside = ports.datasets.ready(job, contents, counts, told)
        if committer.succeed(Success(job, result, None, [], units=max(held.total, 1), alongside=alongside)):
            events.emit("dataset.ingested", dataset_id=job.input[DATASET], images=contents.images, pixels=contents.pixels)
    except Exception as error:  # noqa: BLE001  # shared/errors.py decides what becomes of the attempt; nothing is hidden
        end(held, ports, error)
    if "key" in job.input:
        ended = until_answered(lambda: ports.jobs.get(job.id))
        if ended is None or ended.final:
            with contextlib.suppress(OSError):  # the sweeper takes it
                ports.blobs.delete(job.input["key"])


def _require_enough(held: Held, ports: Ports, counts: dict[str, int], told: dict[str, object], findings: Findings) -> None:
    """Raises `Refused("dataset_faulty")` if fewer than two pictures are usable or more than half are bad; then the report is kept first."""
    if counts["usable"] >= FEWEST and findings.bad * 2 <= findings.images:
        return
    until_answered(lambda: ports.datasets.tell(held.job, counts, told))
    events.emit("dataset.faulty", dataset_id=held.job.input[DATASET], images=findings.images, usable=counts["usable"])
    copies = f", {counts['duplicates']} are copies of others" if counts["duplicates"] else ""
    raise Refused(
        "dataset_faulty",
        f"Of {findings.images} pictures {findings.bad} cannot be used{copies}; at least two, and half of all, must be usable."
        f"{findings.worst} The report of the data set names every fault: mend them, and send it again.",
    )


@dataclass(frozen=True)
class Item:
    """A picture, or the noisy and the clean one of a pair: paths, and the pixels that their headers promise."""

    paths: tuple[str, ...]
    pixels: int
    bytes: int  # of all its pixels, as they will be stored

    @property
    def name(self) -> str:
        """As reports and the index call it."""
        return names.told(self.paths[0])


@dataclass
class Ingest:
    """The walk through a set. Its pictures are written to `pixels` one after the other."""

    held: Held
    ports: Ports
    files: Collection
    pixels: Draft
    findings: Findings = field(default_factory=Findings)
    _places: dict[str, str] = field(default_factory=dict)  # hash → the name under which it is kept

    def run(self) -> tuple[Stored, ...]:
        """All that is usable. Raises `Refused` where there is nothing, or no room for it."""
        items = self._paired(self._survey()) if self.held.job.input["kind"] == "paired" else self._survey()
        self.findings.images = len(items) + self.findings.bad
        self._check_room(items)
        stored: list[Stored] = []
        prints: list[int] = []
        for number, item in enumerate(items):
            self.held.begin(LISTING_SECONDS)  # others may need all the room for long
            self.held.progress(number, len(items))
            if disk.nearly_full(self.ports.settings):
                raise Transient("storage_full")
            try:
                with self.held.room.taking(item.pixels, self.held.check):
                    self.held.begin(READING_SECONDS + SECONDS_PER_MPX * item.pixels / 1e6)
                    found = self._taken(item)
            except Refused as refused:
                self.findings.skip(item.name, refused)
                continue
            if found is not None:
                stored.append(found[0])
                prints.append(found[1])
        self.held.begin(LISTING_SECONDS)
        self.held.progress(len(items), len(items))
        return self._split(stored, prints)

    def _survey(self) -> list[Item]:
        """The pictures whose headers show nothing that is wrong with them, in the order of their paths."""
        items = []
        for number, (path, error) in enumerate(sorted(self.files.files(), key=lambda found: found[0])):
            self.held.begin(READING_SECONDS)
            self.held.progress(0, number + 1)
            if error is None and not is_picture(path):
                self.findings.ignored += 1
                continue
            try:
                if error is not None:
                    raise error
                items.append(self._promised(path))
            except Refused as refused:
                self.findings.skip(names.told(path), refused)
        if not items and not self.findings.bad:
            known = "Pictures are known by the endings of their names: jpg, png, tif, webp, bmp."
            raise Refused("folder_empty" if "folder" in self.held.job.input else "archive_empty", known)
        return items

    def _promised(self, path: str) -> Item:
        with self.files.open(path) as file:
            found = header.read(file, size_of(file), self.ports.settings.max_pixels)
        if min(found.width, found.height) < checks.SMALLEST:
            raise Refused("image_too_small", f"It has {found.width} x {found.height} pixels; at least {checks.SMALLEST} a side are needed.")
        channels = 1 if found.mode in ("1", "L", "LA") else 3
        return Item((path,), found.pixels, found.pixels * channels * (2 if found.bits > 8 else 1))

    def _paired(self, items: Sequence[Item]) -> list[Item]:
        """Each noisy picture with its clean one; those without a partner are skipped."""
        sides: dict[tuple[str, str], dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
        for item in items:
            place = _place(item.paths[0])
            if place is None:
                self.findings.skip(item.name, Refused("pair_missing", f"It lies in no folder `{NOISY}` or `{CLEAN}`."))
            else:
                before, side, behind = place
                sides[before, behind][side].append(item)
        pairs = []
        for of in sides.values():
            noisy, clean = of[NOISY], of[CLEAN]
            if len(noisy) == len(clean) == 1:
                both = noisy[0], clean[0]
                largest = max(item.bytes for item in both)  # they are stored alike
                pairs.append(Item(noisy[0].paths + clean[0].paths, sum(item.pixels for item in both), 2 * largest))
                continue
            for item, others, side in [(item, clean, CLEAN) for item in noisy] + [(item, noisy, NOISY) for item in clean]:
                why = f"`{side}` holds no picture of that name." if not others else "There are several of that name, with other endings."
                self.findings.skip(item.name, Refused("pair_missing", why))
        return pairs

    def _check_room(self, items: Sequence[Item]) -> None:
        settings = self.ports.settings
        size, room = sum(item.bytes for item in items), disk.free(settings) - settings.min_free
        if size > room:
            unpacked = f"Unpacked, its pictures have {size / 1e9:.3g} GB, and {max(room, 0) / 1e9:.3g} GB may be used."
            raise Refused("disk_too_small", f"{unpacked} Free space under LACUNA_HOME, or send fewer pictures.")

    def _taken(self, item: Item) -> tuple[Stored, int] | None:
        """What was written, with its print; None where the same is there already. Raises `Refused` for what is left out."""
        decoded = [self._decoded(path) for path in item.paths]
        sha256 = decoded[0][1] if len(decoded) == 1 else packed.of_pair(decoded[0][1], decoded[1][1])
        if (first := self._places.get(sha256)) is not None:
            self.findings.add("duplicates", {"path": item.name, "of": first})
            return None
        pictures = [pixels for pixels, _ in decoded]
        self.held.check()
        if len(pictures) == 2:
            pictures = self._matched(item, *pictures)
        elif self.held.job.input["kind"] == "clean" and (sigma := checks.noise(pictures[0])) >= checks.NOISY:
            self.findings.add("noisy", {"path": item.name, "sigma": round(sigma, 1)})
            raise Refused("image_noisy", f"Even its flattest parts have noise of about σ {sigma:.0f}, in levels of 0 to 255.")
        self._places[sha256] = item.name
        height, width, channels = pictures[0].shape
        offsets = [self._written(picture) for picture in pictures]
        stored = Stored(item.name, sha256, sha256, height, width, channels, pictures[0].dtype.itemsize * 8, *offsets)  # type: ignore[arg-type]
        return stored, checks.fingerprint(pictures[-1])

    def _decoded(self, path: str) -> tuple[Pixels, str]:
        """(colour, hash of the file)."""
        self.held.check()
        with self.files.open(path) as file:
            pixels = codec.straight(codec.decode(file, size_of(file), self.ports.settings.max_pixels))
            return pixels, inputs.sha256(file)

    def _matched(self, item: Item, noisy: Pixels, clean: Pixels) -> list[Pixels]:
        """Both with the channels and the depth of the richer one. Raises `Refused` pair_size or pair_misaligned."""
        if noisy.shape[:2] != clean.shape[:2]:
            sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in (noisy, clean)]
            raise Refused("pair_size", f"The noisy one has {sizes[0]} pixels, the clean one {sizes[1]}.")
        moved = checks.shift(noisy, clean)
        if moved is not None:
            self.findings.add("misaligned", {"path": item.name, "dx": moved[0], "dy": moved[1]})
            raise Refused("pair_misaligned", f"The noisy one shows everything {_moved(*moved)}.")
        channels, dtype = max(noisy.shape[2], clean.shape[2]), np.promote_types(noisy.dtype, clean.dtype)
        return [_as_rich(picture, channels, dtype) for picture in (noisy, clean)]

    def _written(self, picture: Pixels) -> int:
        """Where it begins."""
        offset = packed.aligned(self.pixels.size)
        self.pixels.write(bytes(offset - self.pixels.size))
        rows = max(1, STRIP_BYTES // picture[0].nbytes)
        for top in range(0, len(picture), rows):
            self.pixels.write(picture[top : top + rows].astype(picture.dtype.newbyteorder("<"), copy=False).tobytes())
            self.held.check()
        return offset

    def _split(self, stored: Sequence[Stored], prints: list[int]) -> tuple[Stored, ...]:
        """The same, but that all which look alike have one key to be split by."""
        groups: dict[int, list[int]] = defaultdict(list)
        for number, group in enumerate(checks.alike(prints, self.held.check)):
            groups[group].append(number)
        images = list(stored)
        for members in groups.values():
            key = split_key([stored[number].sha256 for number in members])
            for number in members:
                images[number] = replace(stored[number], split_key=key)
            if len(members) > 1:
                self.findings.add("near_duplicates", [stored[number].name for number in members[:NAMED]])
        return tuple(images)


def _place(path: str) -> tuple[str, str, str] | None:
    """(what is before the folder of its side, the side, what is behind it without its ending); None: it lies in none of the two."""
    *folders, name = path.split("/")
    side = next((number for number, folder in enumerate(folders) if folder.lower() in (NOISY, CLEAN)), None)
    if side is None:
        return None
    return "/".join(folders[:side]), folders[side].lower(), "/".join([*folders[side + 1 :], name.rpartition(".")[0]])


def _moved(dx: float, dy: float) -> str:
    """`2 pixels further left and 4 pixels further up`."""
    ways = [(dx, "right", "left"), (dy, "down", "up")]
    return " and ".join(f"{abs(by):g} pixels further {ahead if by > 0 else back}" for by, ahead, back in ways if by)


def _as_rich(picture: Pixels, channels: int, dtype: "np.dtype[np.unsignedinteger]") -> Pixels:
    """With so many channels and bits."""
    if picture.shape[2] < channels:
        picture = np.repeat(picture, channels, axis=2)
    return picture if picture.dtype == dtype else picture.astype(dtype) * 257


@contextmanager
def _drafted(ports: Ports) -> Iterator[Draft]:
    """A draft of which nothing is left unless it is placed."""
    draft = ports.blobs.draft()
    try:
        yield draft
    finally:
        draft.discard()
