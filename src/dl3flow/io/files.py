"""The one writer of products and the one check of files to be read.

Every step writes through `write_product`. This is the place where the content stamp of a product (its key and the
hash of its bytes) will be made, between the sync of the temporary file and its renaming.
"""

import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from dl3flow.errors import InputError


def write_product(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that its name never holds anything but a whole product, whatever is killed or cut off.

    Parameters
    ----------
    path : Path
        Final name; its folders are created.
    write : function of a Path
        Writes the content to the temporary name that it is given, in the same folder and with the same ending.

    Raises
    ------
    InputError
        If the disk is full or the place not writable.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be written ({reason}): check the disk's free space and the permissions"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Folder at ``path``, made where it is missing.

    Raises
    ------
    InputError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be made ({error.strerror}): free the place") from None
    return path


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of earlier writers of the same product, who were killed.

    One that still lives, left over from a killed workflow, then fails to rename its file: it cannot replace a newer product.
    """
    pattern = re.compile(rf"\.tmp-\d+-[0-9a-f]{{8}}-{re.escape(path.name)}")
    for other in path.parent.iterdir():
        if pattern.fullmatch(other.name):
            other.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, newlines as they are)."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode())

    write_product(path, write)


def check_regular_file(path: Path) -> Path:
    """Refuse what is missing, empty, or not a regular file (a FIFO would block the reader for ever).

    Raises
    ------
    InputError
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: check the path, or run the step that makes it") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened ({error.strerror}): check the path and its permissions"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise InputError(f"{path}: is {kind}, not a regular file: name the file itself")
    if status.st_size == 0:
        raise InputError(f"{path}: the file is empty: make or copy it again")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read: check its permissions")
    return path


def read_text(path: Path, max_bytes: int = 100_000_000) -> str:
    """Text of a UTF-8 file.

    Raises
    ------
    InputError
        If it is no such file, or larger than ``max_bytes``.
    """
    path = check_regular_file(path)
    if path.stat().st_size > max_bytes:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes is more than the {max_bytes} that such a file may have"
        )
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file (byte {error.start} is not UTF-8): name a text file"
        ) from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
