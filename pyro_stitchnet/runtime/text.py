"""Names and tables as text that every program reads the same."""

import csv
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["csv_text", "escaped", "identity"]


def identity(name: str) -> str:
    """Return a name in the one form in which names are compared and stored.

    That is Unicode's form NFC, without spaces around it; bytes that are not UTF-8 are
    :func:`escaped`.

    Examples:
        >>> identity("Mu\u0308ller ") == "M\u00fcller"
        True
    """
    return escaped(unicodedata.normalize("NFC", name).strip())


def escaped(text: str) -> str:
    r"""Return text that can be written as UTF-8: other bytes of a file's name become \xfc.

    Examples:
        >>> print(escaped("M\udcfcller.nii"))
        M\xfcller.nii
    """

    def code(match: re.Match[str]) -> str:
        number = ord(match[0])
        return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"

    return re.sub("[\ud800-\udfff]", code, text)


def csv_text(table: "pd.DataFrame") -> str:
    """Return a table as CSV, without row names.

    Args:
        table: the table; undecodable bytes in its text are :func:`escaped`.
    """
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # csv quotes the line ends that it writes itself only
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return escaped(text)
