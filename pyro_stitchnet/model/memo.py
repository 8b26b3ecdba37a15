"""Results of a network kept for one pass of model and guide."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, TypeVar

from torch import Tensor

__all__ = ["Memo", "remembered"]

Result = TypeVar("Result")


class Memo:
    """Results by method and input tensor, kept within :meth:`one_pass` only.

    The guide needs the priors for its posterior, and the model, replayed on the guide's z, needs
    them again. Further draws of z for the same slices need no second encoding.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, int], tuple[str, Tensor, Any]] | None = None

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Evaluate each network once per input within; nested uses join the outermost one."""
        if self._results is not None:
            yield
            return
        self._results = {}
        try:
            yield
        finally:
            self._results = None

    @contextmanager
    def one_draw(self) -> Iterator[None]:
        """Forget the results for z afterwards, so that memory does not grow with the draws."""
        yield
        if self._results is not None:
            self._results = {k: v for k, v in self._results.items() if v[0] == "slices"}

    def get(self, name: str, of: str, tensor: Tensor, compute: Callable[[], Result]) -> Result:
        """Return the result for this very tensor, computed at most once within a pass."""
        if self._results is None:
            return compute()
        key = (name, id(tensor))
        if key not in self._results:
            # The tensor is kept too: its id stays unique as long as it lives.
            self._results[key] = (of, tensor, compute())
        result: Result = self._results[key][2]
        return result


def remembered(
    of: Literal["slices", "z"],
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Decorate a method whose last argument is the tensor that its result depends on.

    The object needs a :class:`Memo` as its attribute ``memo``.

    Args:
        of: what the tensor holds; results for "z" are forgotten after each draw.
    """

    def decorate(method: Callable[..., Result]) -> Callable[..., Result]:
        @wraps(method)
        def remembering(self: Any, *arguments: Any) -> Result:
            return self.memo.get(
                method.__qualname__, of, arguments[-1], lambda: method(self, *arguments)
            )

        return remembering

    return decorate
