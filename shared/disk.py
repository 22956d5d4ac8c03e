"""The disk that pictures are kept on."""

import shutil

from shared.settings import Settings


def free(settings: Settings) -> int:
    """Bytes that are free where LACUNA_HOME lies."""
    return shutil.disk_usage(settings.home).free


def nearly_full(settings: Settings) -> bool:
    """Whether less than LACUNA_MIN_FREE is left: uploads are refused then, and bulk pauses."""
    return free(settings) < settings.min_free
