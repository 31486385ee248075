"""Text of environment files and of files that hold one secret, as Docker and Kubernetes mount them."""

from __future__ import annotations

import errno
from pathlib import Path

from syncd.settings.values import stripped

_LIMIT = 1 << 20
"""Bytes of a file that are read: much more than settings need, and a device such as /dev/zero comes to an end."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class UnreadableFileError(OSError):
    """A file cannot be read as text. `str` and `strerror` are the reason; the file is not named.

    It is an OSError, so that the client reports the reason when it reads a rotated secret again.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)

    def __str__(self) -> str:
        return str(self.strerror)


def read_text(file: Path, pipes: dict[Path, str] | None = None) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark.

    Parameters
    ----------
    pipes : dict[Path, str] | None
        The texts of files that are not regular, such as pipes, which can be read only once. A text that is here is
        returned without reading the file; the text of another such file is added.

    Raises
    ------
    UnreadableFileError
        The file cannot be read, is larger than a megabyte, or is not UTF-8 text.
    """
    if pipes is not None and file in pipes:
        return pipes[file]
    text = _decoded(_content(file))
    if pipes is not None and not file.is_file():
        pipes[file] = text
    return text


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(_LIMIT + 1)
    except OSError as error:
        raise UnreadableFileError(f"{error.strerror}") from error
    except ValueError:  # a NUL in the name
        raise UnreadableFileError("it is not the name of a file") from None
    if len(content) > _LIMIT:
        raise UnreadableFileError("it is larger than 1 MiB")
    return content


def _decoded(content: bytes) -> str:
    if content.startswith(_UTF_16):
        raise UnreadableFileError("it is UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass  # raised below: the context of this error quotes the content
    raise UnreadableFileError("it is not UTF-8 text")


def read_secret(file: Path, pipes: dict[Path, str] | None = None) -> str:
    """Return the secret in a file, without surrounding white space, line ends and byte order marks.

    Parameters
    ----------
    pipes : dict[Path, str] | None
        As of `read_text`.

    Raises
    ------
    UnreadableFileError
        As `read_text` says.
    """
    return stripped(read_text(file, pipes))
