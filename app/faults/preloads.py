"""Libraries that are loaded before a program's own: where they are, and what makes them usable.

``scripts/fetch-faults`` puts them into ``.cache/faults`` of a checkout. A server that runs as another
user cannot read a checkout below somebody's home, so it is given copies.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Final

from kernel.errors import OutsideUnavailable

FOLDER: Final = Path(__file__).resolve().parents[2] / ".cache" / "faults"
REQUIRED_VARIABLE: Final = "CAUSEWAY_REQUIRE_FAULTS"
CLOCK_LIBRARY: Final = "libfaketime.so.1"
DISK_LIBRARIES: Final = ("fiu_run_preload.so", "fiu_posix_preload.so")
#: The name under which the two above ask for it, and the file that has it.
DISK_CORE: Final = ("libfiu.so.0", "libfiu.so")

# ELF (64-bit, System V gABI chapters 4 and 5): where the program headers are, and the two fields of
# one of the dynamic section.
_PROGRAM_HEADERS: Final = 32
_PROGRAM_HEADER_SIZES: Final = 54
_PT_DYNAMIC: Final = 2
_DT_FLAGS: Final = 30
_DF_SYMBOLIC: Final = 2


def are_there() -> bool:
    """Tell whether every library was fetched."""
    names = (CLOCK_LIBRARY, DISK_CORE[1], *DISK_LIBRARIES)
    return all((FOLDER / name).is_file() for name in names)


def copied(name: str, folder: Path) -> Path:
    """Return a copy of a library in *folder* that every user can read.

    Raises:
        OutsideUnavailable: it was not fetched.
    """
    source = FOLDER / name
    if not source.is_file():
        raise OutsideUnavailable(
            f"{name} is not there", where=str(FOLDER), remedy="Run scripts/fetch-faults"
        )
    target = folder / name
    shutil.copyfile(source, target)
    target.chmod(0o755)
    return target


def copied_disk_libraries(folder: Path) -> list[Path]:
    """Return copies of what makes disks fail, in the order in which they are to be loaded.

    The second one defines names that PostgreSQL exports as well (``hash_create``) and would be given
    PostgreSQL's, which ends the server; DF_SYMBOLIC makes a library use its own names first.
    """
    core = copied(DISK_CORE[1], folder)
    (folder / DISK_CORE[0]).symlink_to(core.name)
    libraries = [copied(name, folder) for name in DISK_LIBRARIES]
    for library in libraries:
        library.write_bytes(with_own_names_first(library.read_bytes()))
    return libraries


def with_own_names_first(image: bytes) -> bytes:
    """Return an ELF library with DF_SYMBOLIC among its flags."""
    changed = bytearray(image)
    (first,) = struct.unpack_from("<Q", changed, _PROGRAM_HEADERS)
    size, count = struct.unpack_from("<HH", changed, _PROGRAM_HEADER_SIZES)
    for header in range(first, first + size * count, size):
        (kind,) = struct.unpack_from("<I", changed, header)
        if kind != _PT_DYNAMIC:
            continue
        (offset,) = struct.unpack_from("<Q", changed, header + 8)
        (length,) = struct.unpack_from("<Q", changed, header + 32)
        for entry in range(offset, offset + length, 16):
            tag, value = struct.unpack_from("<qQ", changed, entry)
            if tag == _DT_FLAGS:
                struct.pack_into("<Q", changed, entry + 8, value | _DF_SYMBOLIC)
    return bytes(changed)


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let programs that start within the block inherit *variables*; this process is not touched."""
    before = {name: environ.get(name) for name in variables}
    environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
