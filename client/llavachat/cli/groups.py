"""Groups of options: a dataclass whose fields typer takes for options of every command with it."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def flatten(command: Callable[..., int]) -> Callable[..., int]:
    """A command as typer can read it: each parameter that is a dataclass becomes its fields.

    Args:
        command: its dataclasses' fields are declared as typer's parameters are, each with a
            default; no two of its parameters and fields share a name.

    Returns:
        The same command; what typer gives for the fields reaches it as the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[Any, list[str]]] = {}
    flat = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if is_dataclass(kind):
            names = [each.name for each in fields(kind)]
            groups[name] = (kind, names)
            inner = get_type_hints(kind, include_extras=True)
            flat += [_declare(each, inner[each.name]) for each in fields(kind)]
        else:
            flat.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            )

    @functools.wraps(command)
    def run(**given: Any) -> int:
        made = {
            group: kind(**{name: given.pop(name) for name in names})
            for group, (kind, names) in groups.items()
        }
        return command(**given, **made)

    run.__signature__ = inspect.Signature(flat, return_annotation=int)  # type: ignore[attr-defined]
    return run


def _declare(field: "Field[Any]", annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=annotation)
