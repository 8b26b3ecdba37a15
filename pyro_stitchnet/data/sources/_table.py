"""Tables that users write by hand."""

from pathlib import Path
from typing import TYPE_CHECKING

from pyro_stitchnet.runtime.text import identity

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_table"]


def read_table(path: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    """Read a CSV table as text, so that patient 007 keeps its zeros.

    Cells are brought into the form of :func:`~pyro_stitchnet.runtime.text.identity`: among others,
    spaces around them are cut.

    Args:
        path: the file.
        columns: those it must have, without an empty cell. Values of the first must be unique.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a table, lacks a column, a cell or all rows, or repeats a row.
    """
    import pandas as pd  # slow to import, and not needed to list sources

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing; it must be a table with the columns {' and '.join(columns)}"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except ValueError as error:  # pandas' errors and UnicodeDecodeError are ValueErrors
        raise ValueError(
            f"{path}: not a readable table; save it as CSV in UTF-8 ({error})"
        ) from error
    for sign, name in {";": "semicolons", "\t": "tabs"}.items():
        if len(table.columns) == 1 and sign in table.columns[0]:
            raise ValueError(f"{path}: {name} separate its columns; save it with commas instead")
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells for row names
        raise ValueError(
            f"{path}: the rows have more cells than there are columns; put a name that contains a "
            'comma in "quotation marks"'
        )
    table = table.rename(columns=identity)
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise ValueError(f"{path}: has two columns {twice[0]}; remove one")
    if missing := [column for column in columns if column not in table]:
        raise ValueError(
            f"{path}: no column {' nor '.join(missing)}, but {', '.join(table)}; rename or add "
            "a column"
        )
    if table.empty:
        raise ValueError(f"{path}: has no rows; list every {columns[0]}")
    for column in table:
        table[column] = table[column].fillna("").map(identity)
    for column in columns:
        empty = table[column] == ""
        if empty.any():
            raise ValueError(f"{path}: row {int(empty.argmax()) + 2} lacks its {column}; add it")
    repeated = table[columns[0]][table[columns[0]].duplicated()]
    if len(repeated):
        raise ValueError(f"{path}: {repeated.iloc[0]} is listed twice; remove one row")
    return table
