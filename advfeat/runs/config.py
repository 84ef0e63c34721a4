"""Configurations of experiments: frozen dataclasses whose fields are command-line flags.

Example:
  >>> @dataclasses.dataclass(frozen=True, kw_only=True)
  ... class MyConfig(Config):
  ...     eps: float = flag(8 / 255, "Radius of the ball.", kind="eps")
  ...     seeds: tuple[int, ...] = flag((0, 1), "Seeds of the fresh networks.")
  >>> config = parse(MyConfig, ["--workdir=runs/a", "--eps=0.5", "--seeds=0,1,2"])
  >>> config.eps, config.seeds, config.dataset
  (0.5, (0, 1, 2), 'digits')
  >>> parse(MyConfig, ["--workdir=runs/a", "--eps=-1"])
  Traceback (most recent call last):
  ...
  advfeat.runs.config.UsageError: flag --eps=-1: must be a number >= 0, as in 0.5, 8/255 or inf
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import textwrap
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from absl import flags as absl_flags

from advfeat.runs.choices import load_plugins, plugins_in
from advfeat.runs.kinds import KINDS, Kind, format_eps

C = TypeVar("C", bound="Config")

REQUIRED: Any = dataclasses.MISSING


class UsageError(ValueError):
    """Raised for an invalid request by the user; the message is one line."""


class HelpRequested(Exception):
    """Raised when the command line asks for the help text; carries that text."""


def flag(
    default: Any,
    help: str,
    *,
    kind: str | None = None,
    choices: Collection[Any] | None = None,
) -> Any:
    """Returns a dataclass field that is a command-line flag.

    Args:
      default: value if the flag is not given; `REQUIRED` if it must be.
      help: one sentence.
      kind: a key of `KINDS` narrower than the field's type: "eps" (a radius), "natural" (an integer
        >= 0; as a number of examples, 0 means all of them in every command, never none), "count"
        (an integer >= 1), "positive", "nonnegative", "fraction". In a tuple field it applies to
        every element; "eps_list" is "eps".
      choices: the only allowed values; in a tuple field, of each element.

    Returns:
      The field.
    """
    metadata = {"help": help, "kind": "eps" if kind == "eps_list" else kind, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Flags common to all experiments."""

    SMALLEST: typing.ClassVar[Mapping[str, Any]] = {}
    """What `smallest` reduces: flag to its value in a dry run. Subclasses state their own flags."""

    workdir: str = flag(REQUIRED, "Directory the run writes into; also resumes a killed run.")
    dataset: str = flag(
        "digits", "digits, mnist, cifar10, any TFDS name, a folder, or a constructed .npz."
    )
    data_dir: str | None = flag(None, "Location of TFDS data (default: TFDS_DATA_DIR).")
    classes: tuple[str, ...] | None = flag(None, "Keep only these classes, as in cat,dog.")
    seed: int = flag(0, "Seed of everything random in the run.", kind="natural")
    dry_run: bool = flag(False, "Smallest run that exercises the whole experiment.")
    cpu_devices: int | None = flag(
        None, "CPU devices that share every batch (default: one per core).", kind="count"
    )
    overwrite: bool = flag(False, "Delete the existing run in workdir and start afresh.")
    plugins: tuple[str, ...] | None = flag(
        None, "Your own modules to import first; flags can name what they register."
    )

    def validate(self) -> None:
        """Checks every value, also of a config built without a command line.

        To check values against each other, override it and call `super().validate()` first.

        Raises:
          ValueError: naming the flag, its value and the allowed values.
        """
        load_plugins(self.plugins or ())
        for option in _options(type(self)):
            option.check(getattr(self, option.name))
        if self.classes is not None and not 2 <= len(set(self.classes)) == len(self.classes):
            raise UsageError(
                f"flag --classes={','.join(self.classes)}: must be at least 2 different classes"
            )

    def smallest(self: C) -> C:
        """Returns the config that a dry run of this one performs.

        It changes the flags in the `SMALLEST` of the class and its bases: a number becomes the
        smaller of the two (0 examples mean all of them, the largest number), a tuple keeps as many
        of its items as the smallest one has, evenly spread and always the last, and None, which
        leaves a flag to a preset, becomes the smallest. A smallest value of None leaves the flag to
        its preset. What is measured, and by which attack, stays.

        Example:
          >>> @dataclasses.dataclass(frozen=True, kw_only=True)
          ... class MyConfig(Config):
          ...     SMALLEST = {"epochs": 1, "examples": 50, "shares": (0.5,)}
          ...     epochs: int | None = flag(None, "Passes over the data.", kind="count")
          ...     examples: int = flag(0, "Images; 0: all.", kind="natural")
          ...     shares: tuple[float, ...] = flag((0.1, 0.9), "Shares.")
          >>> small = MyConfig(workdir="runs/a").smallest()
          >>> small.epochs, small.examples, small.shares
          (1, 50, (0.9,))
        """
        least: dict[str, Any] = {}
        for part in reversed(type(self).__mro__):
            least |= vars(part).get("SMALLEST", {})
        options = {option.name: option for option in _options(type(self))}
        changed = {n: options[n].smaller(getattr(self, n), value) for n, value in least.items()}
        return dataclasses.replace(self, **changed)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the result: all but where it is computed and kept."""
        apart = ("workdir", "overwrite", "cpu_devices")
        return {o.name: getattr(self, o.name) for o in _options(type(self)) if o.name not in apart}

    def command(self, module: str) -> str:
        """Returns the command line that reproduces this config.

        Args:
          module: the experiment's module, such as `experiments.train`.

        Returns:
          A shell command naming every flag that differs from its default.
        """
        words = ["python", "-m", module]
        for option in _options(type(self)):
            value = getattr(self, option.name)
            if value != option.default and option.name != "overwrite":
                words.append(f"--{option.name}={option.text(value)}")
        return shlex.join(words)


def parse(config_class: type[C], arguments: Sequence[str], doc: str | None = None) -> C:
    """Parses a command line.

    Args:
      config_class: A subclass of `Config`.
      arguments: the command line without the program's name.
      doc: text above the flags in the help, usually the experiment's module docstring.

    Returns:
      The validated config.

    Raises:
      UsageError: for an unknown flag, a value of the wrong type or out of range, or a missing flag.
      HelpRequested: if `--help` is among the arguments.
    """
    try:  # first, since other flags may name what they register
        load_plugins(plugins_in(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from error
    options = _options(config_class)
    values = absl_flags.FlagValues()
    for option in options:
        option.define(values)
    absl_flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=values)
    try:
        rest = values(["", *arguments])[1:]
    except absl_flags.Error as error:
        raise UsageError(" ".join(str(error).split())) from None
    if values["help"].value:
        raise HelpRequested(help_text(config_class, doc))
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: flags are written --name=value")
    for option in options:
        if option.default is REQUIRED and values[option.name].value is None:
            raise UsageError(f"flag --{option.name} is missing")
    found = {option.name: _home(values[option.name].value) for option in options}
    config = config_class(**found)
    try:
        config.validate()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return config


def _home(value: Any) -> Any:
    """Expands the tilde in `--workdir=~/runs`: a shell does so only at the start of a word."""
    return os.path.expanduser(value) if str(value).startswith("~/") else value


def help_text(config_class: type[Config], doc: str | None = None) -> str:
    """Returns the docstring followed by every flag with its default."""
    lines = [textwrap.dedent(doc).strip(), ""] if doc else []
    lines.append("flags:")
    for option in _options(config_class):
        shown = "required" if option.default is REQUIRED else option.text(option.default)
        choices = f" One of {', '.join(map(str, option.choices))}." if option.choices else ""
        lines.append(f"  --{option.name}")
        text = f"{option.help}{choices} [{shown}]"
        lines += textwrap.wrap(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Option:
    """One flag: a field of a config with its parsed type."""

    name: str
    default: Any
    help: str
    kind: Kind
    choices: Collection[Any] | None
    many: bool
    optional: bool

    def parse(self, text: str) -> Any:
        """Parses the flag's text.

        Raises:
          ValueError: naming the allowed values.
        """
        # "none" may be a choice of its own (no augmentation) rather than the absence of the flag.
        absent = ("",) if "none" in (self.choices or ()) else ("", "none")
        if self.optional and text.lower() in absent:
            return None
        words = [word.strip() for word in text.split(",")] if self.many else [text.strip()]
        try:
            found = tuple(self.kind.parse(word) for word in words)
        except (ValueError, KeyError, OverflowError):
            raise ValueError(f"must be {self.words}") from None
        value = found if self.many else found[0]
        if not self._allows(value):
            raise ValueError(f"must be {self.words}")
        return value

    def check(self, value: Any) -> None:
        """Raises UsageError unless the value is allowed."""
        if not self._allows(value):
            raise UsageError(f"flag --{self.name}={self.text(value)}: must be {self.words}")
        if self.many and self.choices and value is not None and len(set(value)) < len(value):
            raise UsageError(f"flag --{self.name}={self.text(value)}: names one twice")

    def smaller(self, given: Any, least: Any) -> Any:
        """Reduces a value to a smallest one, as `Config.smallest` does."""
        if given is None or least is None:
            return least
        if self.many:
            last, count = len(given) - 1, min(len(least), len(given))
            places = [last - last * k // max(count - 1, 1) for k in range(count)]
            return tuple(given[place] for place in reversed(places))
        everything = self.kind is KINDS["natural"] and given == 0
        return least if everything else min(given, least)

    def text(self, value: Any) -> str:
        """Formats a value as it would be typed."""
        if isinstance(value, (tuple, list)):
            return ",".join(self.text(item) for item in value)
        if value is None or isinstance(value, bool):
            return str(value).lower()
        if self.kind is KINDS["eps"] and KINDS["eps"].allowed(value):
            return format_eps(value)
        return str(value)

    def define(self, values: absl_flags.FlagValues) -> None:
        """Defines the option as a flag of `values`."""
        default = None if self.default is REQUIRED else self.default
        if self.kind is KINDS["bool"] and not self.many and not self.optional:
            option = absl_flags.BooleanFlag(self.name, default, self.help)  # also --noNAME
            option.parser = _BooleanParser()
            absl_flags.DEFINE_flag(option, values)
        else:
            parser = _Parser(self)
            absl_flags.DEFINE(parser, self.name, None, self.help, flag_values=values)
            values[self.name].value = default  # set directly: a default is not parsed from text

    @property
    def words(self) -> str:
        """Description of the allowed values, to follow "must be"."""
        one = f"one of {', '.join(map(str, self.choices))}" if self.choices else self.kind.words
        return f"a list with commas, each {one}" if self.many else one

    def _allows(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if self.many and not (isinstance(value, tuple) and value):
            return False
        return all(
            self.kind.allowed(item) and (self.choices is None or item in self.choices)
            for item in (value if self.many else (value,))
        )


class _Parser(absl_flags.ArgumentParser):
    """Adapts an option's parser to absl."""

    def __init__(self, option: _Option):
        self._option = option

    def parse(self, argument: Any) -> Any:
        return self._option.parse(argument)


class _BooleanParser(absl_flags.BooleanParser):
    def parse(self, argument: Any) -> bool:
        try:
            return super().parse(argument)
        except ValueError:
            raise ValueError(f"must be {KINDS['bool'].words}") from None


def _options(config_class: type[Config]) -> tuple[_Option, ...]:
    hints = typing.get_type_hints(config_class)
    return tuple(_option(f, hints[f.name]) for f in dataclasses.fields(config_class))


def _option(field: dataclasses.Field[Any], hint: Any) -> _Option:
    inner = [part for part in typing.get_args(hint) if part is not type(None)]
    optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    if optional:
        hint = inner[0]
    many = typing.get_origin(hint) is tuple
    kind = field.metadata["kind"] or (typing.get_args(hint)[0] if many else hint).__name__
    return _Option(
        name=field.name,
        default=field.default,
        help=field.metadata["help"],
        kind=KINDS[kind],
        choices=field.metadata["choices"],
        many=many,
        optional=optional,
    )
