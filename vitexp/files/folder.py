"""Folders whose files may be a stranger's work, and files that are written whole or not at all.

A run folder is handed around, so what stands in one is read with care: through descriptors of folders, so that no link
in it is followed; regular files only, so that no pipe is waited for; not more bytes than such a file has.
"""

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO

from vitexp.errors import CheckpointError
from vitexp.files.strict_json import parse_json

# The kinds of files of a run folder are far smaller; what may be larger sets its own bound.
MAX_BYTES = 16 * 2**20
# Files that are being written begin with it.
PART = ".part-"
_NAME = re.compile(r"[\w=,.+@-]+")
_NAME_BYTES = 200
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without waiting for the other end of a pipe, and not through a link.
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_plain(name: str) -> bool:
    """Whether a file or folder of ours may have this name."""
    return name not in (".", "..") and bool(_NAME.fullmatch(name)) and len(name.encode()) <= _NAME_BYTES


def plain_name(name: str) -> str:
    """The name of a file or folder of ours, checked.

    Raises:
        CheckpointError: it has another character than letters, digits and = , . _ + - @, or more than 200 bytes.
    """
    if not is_plain(name):
        raise CheckpointError(
            f"{name[:80]!a} cannot name a file of a run; letters, digits and = , . _ + - @ can, up to {_NAME_BYTES}"
        )
    return name


def as_name(text: str) -> str:
    """A text as the name of a file: every character that a name cannot have becomes `_`."""
    return re.sub(r"[^\w=,+@-]", "_", text)[: _NAME_BYTES // 4] or "_"


class Folder:
    """A folder of ours, such as that of a run: `root` is where the user says, `parts` are below it.

    `root` may be reached through links, which are the user's own. Nothing below it is: each part and each file is
    opened in the folder before it, and a link there is an error. Names of files are `plain_name`s.
    """

    def __init__(self, root: Path, *parts: str) -> None:
        self.root = root
        self.parts = tuple(plain_name(part) for part in parts)

    @property
    def path(self) -> Path:
        """The path, for messages and for libraries that take nothing else; `made` and `require` check before."""
        return self.root.joinpath(*self.parts)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name

    def sub(self, *names: str) -> "Folder":
        """A folder in it, which need not exist."""
        return Folder(self.root, *self.parts, *names)

    def made(self) -> "Folder":
        """The same folder, made where it was absent; its parts are real folders at this moment."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._open(make=True):
            return self

    def entries(self) -> dict[str, str]:
        """Name -> `file`, `folder`, `link` or `other` of what is in it, sorted; empty where there is no such folder.

        Raises:
            CheckpointError: it is no folder, or cannot be read.
        """
        try:
            with self._open() as folder, os.scandir(folder) as found:
                return {entry.name: _kind(entry) for entry in sorted(found, key=lambda entry: entry.name)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read ({error.strerror})") from error

    def holds(self, name: str) -> bool:
        """Whether there is anything of this name; False where there is no such folder."""
        try:
            with self._open() as folder:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read ({error.strerror})") from error
        return True

    def has(self, name: str) -> bool:
        """Whether there is a regular file of this name."""
        try:
            with self._regular(name, os.O_RDONLY):
                return True
        except (OSError, CheckpointError):
            return False

    def require(self, name: str) -> Path:
        """The path of a regular file for a library that opens files itself, checked just before.

        Raises:
            FileNotFoundError: there is none.
            CheckpointError: something else has that name.
        """
        with self.reading(name):
            return self.path / name

    def require_no_links(self) -> None:
        """Raise CheckpointError if anything below is a link: libraries that write there would follow it."""
        for name, kind in self.entries().items():
            if kind == "link":
                raise CheckpointError(
                    f"{self.path / name} is a link, and a run writes to its own files only; remove it or copy it"
                )
            if kind == "folder" and _NAME.fullmatch(name):
                self.sub(name).require_no_links()

    @contextmanager
    def reading(self, name: str) -> Iterator[BufferedReader]:
        """A regular file, opened.

        Raises:
            FileNotFoundError: there is none.
            CheckpointError: something else has that name, or it may not be read.
        """
        with self._regular(name, os.O_RDONLY) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file

    def read(self, name: str, *, most: int = MAX_BYTES) -> bytes:
        """The content of a file; errors as of `reading`, and CheckpointError for more than `most` bytes."""
        with self.reading(name) as file:
            return self._content(file, name, most)

    def text(self, name: str, *, most: int = MAX_BYTES) -> str:
        """The text in a file; errors as of `read`, and CheckpointError for what is not UTF-8."""
        return self._decoded(self.read(name, most=most), name)

    def lines(self, name: str, *, most: int) -> list[str]:
        """The whole lines of a text that may be written at this moment: those on which two readings agree.

        Errors as of `text`.
        """
        with self.reading(name) as file:
            first = self._content(file, name, most)
            file.seek(0)
            second = self._content(file, name, most)
        if first == second:
            return self._decoded(first[: first.rfind(b"\n") + 1], name).split("\n")[:-1]
        readings = [self._decoded(content[: content.rfind(b"\n") + 1], name) for content in (first, second)]
        agreed = zip(*(reading.split("\n")[:-1] for reading in readings), strict=False)
        return [line for line, again in agreed if line == again]

    def tail(self, name: str, *, most: int) -> str:
        """The end of a text, whatever its encoding; errors as of `reading`."""
        with self.reading(name) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most).decode(errors="replace")

    def json(self, name: str, *, advice: str) -> dict[str, Any]:
        """The JSON object in a file; errors as of `text`, and CheckpointError for anything else, ending in `advice`."""
        content = self.text(name)
        return parse_json(content, dict, source=str(self.path / name), error=CheckpointError, advice=advice)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A new file to write to, which gets its name once it is on the disk; nothing is left after an error.

        A link of that name is replaced, not followed.
        """
        plain_name(name)
        try:
            with self._open() as folder, _replacing(folder, name) as part:
                yield self.path / part
        except IsADirectoryError:
            said = f"{self.path / name} is a folder, and a file is to be written there; remove it"
            raise CheckpointError(said) from None

    def write_text(self, name: str, text: str) -> Path:
        """Write a text so that a reader sees the old content or the new, never half of it."""
        with self.writing(name) as part:
            part.write_bytes(text.encode(errors="backslashreplace"))
        return self.path / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write JSON as `write_text` does."""
        return self.write_text(name, json.dumps(content, indent=2, default=str) + "\n")

    @contextmanager
    def updating(self, name: str, *, append: bool = False) -> Iterator[int]:
        """The descriptor of a file to write into, made where it was absent if to append; errors as of `reading`."""
        with self._regular(name, os.O_WRONLY | (os.O_APPEND | os.O_CREAT if append else 0)) as descriptor:
            yield descriptor

    @contextmanager
    def appending(self, name: str) -> Iterator[TextIO]:
        """A text file to add lines to; errors as of `reading`."""
        with (
            self.updating(name, append=True) as descriptor,
            os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace", closefd=False) as file,
        ):
            yield file

    def rename(self, name: str, new: str) -> None:
        """Give a file another name, over what has it."""
        with self._open() as folder:
            os.replace(name, plain_name(new), src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, name: str) -> None:
        """Take a file or link away, if there is one."""
        with suppress(FileNotFoundError), self._open() as folder:
            os.unlink(name, dir_fd=folder)

    def remove_parts(self) -> None:
        """Take away what killed writers have left; for whoever writes here alone."""
        for name in self.entries():
            if name.startswith(PART) or (name.startswith(".") and name.endswith(".part")):
                self.remove(name)

    def sync(self) -> None:
        """Wait until the names in it are on the disk."""
        with self._open() as folder:
            os.fsync(folder)

    def _content(self, file: BufferedReader, name: str, most: int) -> bytes:
        """The content of an open file, or CheckpointError if there is more than `most` bytes."""
        if os.fstat(file.fileno()).st_size > most or len(content := file.read(most + 1)) > most:
            raise CheckpointError(f"{self.path / name} is larger than {most:,} bytes, and none of vitexp's is")
        return content

    def _decoded(self, content: bytes, name: str) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path / name} cannot be read ({error}); copy the run again") from error

    @contextmanager
    def _open(self, *, make: bool = False) -> Iterator[int]:
        """The descriptor of the folder, component by component."""
        folder = os.open(self.root, _FOLDER)
        try:
            for part in self.parts:
                below = self._below(folder, part, make=make)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _below(self, folder: int, part: str, *, make: bool) -> int:
        """The descriptor of a folder in an open one."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
        try:
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except NotADirectoryError:
            said = f"{part} in {self.path} is a link or a file, not a folder; remove it or copy it"
            raise CheckpointError(said) from None

    @contextmanager
    def _regular(self, name: str, flags: int) -> Iterator[int]:
        """The descriptor of a regular file."""
        path = self.path / plain_name(name)
        try:
            with self._open() as folder:
                with suppress(FileNotFoundError):  # a device must not even be opened
                    _require_regular(path, os.stat(name, dir_fd=folder, follow_symlinks=False))
                descriptor = os.open(name, flags | _SAFE, 0o666, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            if flags != os.O_RDONLY and error.errno != errno.ELOOP:
                raise  # a full disk, or one that may not be written to, is no fault of the folder's
            raise CheckpointError(f"{path} cannot be opened ({error.strerror}); copy the run again") from error
        try:
            _require_regular(path, os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)


def _kind(entry: "os.DirEntry[Any]") -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kinds: dict[str, Callable[[int], bool]] = {"a link": stat.S_ISLNK, "a folder": stat.S_ISDIR}
        kind = next((kind for kind, is_kind in kinds.items() if is_kind(found.st_mode)), "a pipe or device")
        raise CheckpointError(f"{path} is {kind}, and a run reads and writes its own files only; remove it or copy it")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to, as `Folder.writing`, for a path that the user has typed."""
    folder = os.open(path.parent, _FOLDER)
    try:
        with _replacing(folder, path.name) as part:
            yield path.with_name(part)
    finally:
        os.close(folder)


@contextmanager
def _replacing(folder: int, name: str) -> Iterator[str]:
    """The random name of a new file in a folder, which is renamed to `name`."""
    part = f"{PART}{secrets.token_hex(8)}{Path(name).suffix}"
    made = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o666, dir_fd=folder)
    mode = stat.S_IMODE(os.fstat(made).st_mode)
    os.close(made)
    try:
        yield part
        written = os.open(part, os.O_RDONLY | _SAFE, dir_fd=folder)  # some libraries put another file in its place
        try:
            os.fchmod(written, mode)
            os.fsync(written)
        finally:
            os.close(written)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        raise
