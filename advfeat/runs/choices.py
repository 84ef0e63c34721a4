"""Names in registries, as choices of flags that are read without importing the registries.

Importing a registry takes seconds (it imports JAX). Until then its names are read from its source,
where it is a literal; once it is imported, it is asked itself, so that what a package has added
from outside can be chosen too. A command imports such packages by `--plugins`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any


def load_plugins(modules: Iterable[str]) -> None:
    """Imports modules that register attacks, objectives, data sets … of other packages.

    Raises:
      ValueError: for a module that is not there.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ValueError(f"flag --plugins={name}: there is no such module") from None


def plugins_in(arguments: Sequence[str]) -> list[str]:
    """Returns the modules that the flag --plugins of a command line names.

    >>> plugins_in(["--seed=1", "--plugins=a,b.c"]), plugins_in(["--plugins", "a"])
    (['a', 'b.c'], ['a'])
    """
    following = [*arguments[1:], ""]
    return [
        module
        for word, after in zip(arguments, following, strict=False)
        if word.partition("=")[0] == "--plugins"
        for module in (word.partition("=")[2] or after).split(",")
    ]


class Registered(Collection[str]):
    """The names in one or several registries, as choices of a flag.

    Args:
      *registries: "MODULE:NAME" of a dict, or a tuple of names, that stands in the module's source
        as a literal.
      more: further names.

    >>> norms = Registered("advfeat.training.optimisers:SCHEDULES")
    >>> list(norms), "warm" in norms
    (['constant', 'cosine', 'onecycle', 'multistep'], False)
    """

    def __init__(self, *registries: str, more: tuple[str, ...] = ()):
        self._registries, self._more = registries, more

    def __iter__(self) -> Iterator[str]:
        for registry in self._registries:
            found = _imported(registry)
            yield from _written(registry) if found is None else found
        yield from self._more

    def __contains__(self, name: object) -> bool:
        return any(name == other for other in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def written(self) -> tuple[str, ...]:
        """Returns the names in the source alone, without additions from outside."""
        return (*(name for registry in self._registries for name in _written(registry)),)

    def fact(self, name: str, fact: str, default: Any) -> Any:
        """Returns what an entry says of itself.

        Args:
          name: the entry.
          fact: a keyword of the call that makes the entry, an attribute of the entry.
          default: the value if the entry does not say it.

        >>> attacks = Registered("advfeat.attacks:ATTACKS")
        >>> attacks.fact("ddn", "norms", None), attacks.fact("pgd", "norms", None)
        (('l2',), None)
        """
        for registry in self._registries:
            found = _imported(registry)
            if found is not None and name in found:
                return getattr(found[name], fact, default)
            if found is None and name in _written(registry):
                return _written(registry)[name].get(fact, default)
        return default


def _imported(registry: str) -> Any:
    """Returns the registry if its module has been imported, else None."""
    module, _, name = registry.partition(":")
    return getattr(sys.modules.get(module), name, None)


@functools.cache
def _written(registry: str) -> dict[str, dict[str, Any]]:
    """Reads a registry's names, and the literal keywords of its entries, from its source."""
    module, _, name = registry.partition(":")
    for node in ast.parse(_source(module).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value  # type: ignore[attr-defined]
            if isinstance(value, ast.Tuple):
                return {entry: {} for entry in ast.literal_eval(value)}
            keys = [ast.literal_eval(key) for key in value.keys]
            return dict(zip(keys, map(_facts, value.values), strict=True))
    raise LookupError(f"{module} has no {name}")


def _source(module: str) -> pathlib.Path:
    """Returns the file of a module without importing its package."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    assert spec is not None
    assert spec.origin is not None
    path = pathlib.Path(spec.origin).parent.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _facts(node: ast.expr) -> dict[str, Any]:
    """Returns the keywords of a call whose values are literals."""
    found = {}
    for word in node.keywords if isinstance(node, ast.Call) else ():
        try:
            found[word.arg or ""] = ast.literal_eval(word.value)
        except ValueError:
            continue  # a function
    return found
