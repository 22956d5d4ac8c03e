"""Start the service on a home of its own, send it five noisy photos over HTTP, and show what came back."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from client.http import Lacuna
from demo.photos import NAMES, SIGMA, noisy, photo
from shared import children
from shared.imaging import metrics

OUT = Path(__file__).parent / "out"
START_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """One photo: PSNR in dB before and after, SSIM after, and the seconds from sending to having it."""

    name: str
    size: str
    before: float
    after: float
    ssim: float
    seconds: float


def main() -> None:
    """Run the demo; exit status 1 if a photo did not come back better."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lacuna-demo-") as home:
        port = _free_port()
        environ = {"LACUNA_HOME": home, "LACUNA_BIND": f"127.0.0.1:{port}"}
        log = (Path(home) / "log").open("w+b")
        print("Starting the service: queue, API, workers, upkeep …", flush=True)
        service = subprocess.Popen(children.python("server.cli", "up"), env={**os.environ, **environ}, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_up(service, address, log.name)
            rows = [_restore(address, name) for name in NAMES]
        finally:
            service.terminate()
            service.wait()
            log.close()
    _show(rows)
    sys.exit(0 if all(row.after > row.before for row in rows) else 1)


def _restore(address: str, name: str) -> Row:
    clean = photo(name)
    sent, back = OUT / f"{name}.noisy.png", OUT / f"{name}.restored.png"
    Image.fromarray(noisy(clean)).save(sent)
    began = time.monotonic()
    with Lacuna(address) as lacuna:
        job = lacuna.wait(lacuna.restore(sent, label="demo")["id"])
        if job["state"] != "succeeded":
            sys.exit(f"{name}: {job['error']['title']}. {job['error']['detail']}")
        lacuna.download(job, back)
    seconds = time.monotonic() - began
    restored = np.asarray(Image.open(back), dtype=np.uint8)
    before, after = metrics.compare(noisy(clean), clean), metrics.compare(restored, clean)
    _side_by_side(name, noisy(clean), restored)
    print(f"  {name}: restored", flush=True)
    return Row(name, f"{clean.shape[1]} × {clean.shape[0]}", before.psnr, after.psnr, after.ssim, seconds)


def _side_by_side(name: str, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> None:
    """One picture: the left half before, the right half after, a line between."""
    middle = before.shape[1] // 2
    joined = Image.fromarray(np.concatenate([before[:, :middle], after[:, middle:]], axis=1)).convert("RGB")
    ImageDraw.Draw(joined).line([(middle, 0), (middle, joined.height)], fill="white", width=2)
    joined.save(OUT / f"{name}.before-after.png")


def _show(rows: list[Row]) -> None:
    print(f"\nGaussian noise, σ = {SIGMA:g}, in 8-bit files:\n")
    print(f"  {'photo':<10} {'size':<10} {'noisy':>8} {'restored':>9} {'gain':>7} {'SSIM':>6} {'time':>7}")
    for row in rows:
        gain = row.after - row.before
        print(f"  {row.name:<10} {row.size:<10} {row.before:>5.2f} dB {row.after:>6.2f} dB", end="")
        print(f" {gain:>+7.2f} {row.ssim:>6.3f} {row.seconds:>5.1f} s")
    mean = sum(row.after - row.before for row in rows) / len(rows)
    print(f"\n  mean gain {mean:+.2f} dB. The first photo waits for the network to load.")
    shown = OUT.relative_to(Path.cwd()) if OUT.is_relative_to(Path.cwd()) else OUT
    print(f"\nBefore and after, side by side: {shown}/*.before-after.png")


def _wait_until_up(service: "subprocess.Popen[bytes]", address: str, log: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if service.poll() is not None:
            sys.exit(f"The service did not start:\n{Path(log).read_text()}")
        try:
            if httpx.get(f"{address}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    sys.exit(f"The service did not answer within {START_SECONDS} seconds:\n{Path(log).read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
