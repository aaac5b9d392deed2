"""From what a person writes (`module:attribute`, `path/to/file.py`) to an application and its kind.

Every way to fail is an `AppLoadError` with one sentence; if the application's own code raised, its traceback comes
along, without our frames.

Imports `errors` and its neighbours.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from scgi.apps.handler import SCGIHandler
from scgi.errors import AppLoadError

INTERFACES: Final = ("auto", "wsgi", "handler")
_USUAL_NAMES: Final = ("application", "app")
_FACTORY: Final = re.compile(r"([A-Za-z_][\w.]*)\(\)\Z")


@dataclass(frozen=True, slots=True)
class Application:
    """A loaded application: the object, its kind (`wsgi` or `handler`) and the name it was asked for by."""

    target: Any
    interface: str
    name: str


def load_application(name: str, interface: str = "auto") -> Application:
    """Load what `name` names. Raises `AppLoadError`.

    `name` is `module`, `module:attribute`, `module:factory()`, `path/to/file.py` or `path/to/file.py:attribute`;
    without an attribute, `application`, `app` or the file's only `SCGIHandler` subclass is taken.
    """
    place, attribute = _parts(name)
    module = _import_file(place) if place.endswith(".py") else _import_module(place)
    target = _find(module, place, attribute)
    return Application(target, _interface(target, interface, name), name)


def check_application(target: Any, interface: str = "auto") -> Application:
    """The same for an object that is there already. Raises `AppLoadError`."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return Application(target, _interface(target, interface, name), name)


def _parts(name: str) -> tuple[str, str]:
    place, colon, attribute = name.rpartition(":")
    if not colon:
        return name, ""
    if not place or not attribute:
        raise AppLoadError(f"application: expected MODULE:ATTRIBUTE or a path to a .py file, got {name!r}")
    return place, attribute


def prepare_path(chdir: str, paths: Sequence[str], environ: Mapping[str, str]) -> None:
    """Where the application looks for its files and modules, before it is loaded. Raises `AppLoadError`."""
    if chdir:
        try:
            os.chdir(chdir)
        except OSError as error:
            raise AppLoadError(f"cannot change to the folder {chdir}: {error.strerror}") from None
    os.environ.update(environ)
    for path in (*reversed(paths), str(Path.cwd())):
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, str(Path(path).absolute()))


def _import_module(name: str) -> ModuleType:
    if "/" in name or not all(part.isidentifier() for part in name.split(".")):
        raise AppLoadError(
            f"application: expected MODULE:ATTRIBUTE or a path to a .py file, got {name!r}"
            + ("; a file's name must end in .py" if Path(name).exists() else "")
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise AppLoadError(
                f"there is no module {error.name!r} in {Path.cwd()} or elsewhere on Python's path; "
                "use --chdir or --pythonpath to say where it is"
            ) from None
        raise _raised(name, error) from None
    except BaseException as error:
        raise _raised(name, error) from None


def _import_file(place: str) -> ModuleType:
    path = Path(place).absolute()
    if not path.is_file():
        raise AppLoadError(f"there is no file {path}")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"scgi_application_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppLoadError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        raise _raised(place, error) from None
    return module


def _raised(place: str, error: BaseException) -> AppLoadError:
    """The application's own exception at import: keep its traceback, from its first frame on."""
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    if isinstance(error, SystemExit):
        sentence = f"{place} called sys.exit({error.code!r}) while it was being imported"
    else:
        sentence = f"{place} cannot be imported: {type(error).__name__}: {error}"
    return AppLoadError(sentence, traceback=text)


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or filename == importlib.__file__


def _find(module: ModuleType, place: str, attribute: str) -> Any:
    if not attribute:
        return _find_usual(module, place)
    factory = _FACTORY.match(attribute)
    target: Any = module
    for part in (factory[1] if factory else attribute).split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise AppLoadError(f"{place} has no {part!r}{_suggest(module)}") from None
    if not factory:
        return target
    try:
        return target()
    except BaseException as error:
        raise _raised(f"{place}:{attribute}", error) from None


def _find_usual(module: ModuleType, place: str) -> Any:
    for usual in _USUAL_NAMES:
        if hasattr(module, usual):
            return getattr(module, usual)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, SCGIHandler) and value.__module__ == module.__name__
    ]
    if len(own) == 1:
        return own[0]
    raise AppLoadError(
        f"{place}: expected 'application', 'app' or one SCGIHandler subclass; "
        f"name what to serve: {place}:ATTRIBUTE{_suggest(module)}"
    )


def _suggest(module: ModuleType) -> str:
    own = sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
    )
    return f" (it has: {', '.join(own[:8])})" if own else ""


def _interface(target: Any, asked: str, name: str) -> str:
    is_handler = isinstance(target, type) and issubclass(target, SCGIHandler)
    if asked == "handler" and not is_handler:
        raise AppLoadError(f"{name}: expected a subclass of SCGIHandler, found {_kind(target)}")
    if asked == "wsgi" or not is_handler:
        if not callable(target):
            raise AppLoadError(f"{name}: expected a WSGI callable or a SCGIHandler subclass, found {_kind(target)}")
        return "wsgi"
    refuse_unrunnable(target)
    return "handler"


def refuse_unrunnable(handler: type[SCGIHandler], threads: int = 1) -> None:
    """A handler class that the workers could not run as its author means it. Raises `AppLoadError`."""
    if handler.serve is not SCGIHandler.serve:
        raise AppLoadError(
            f"{handler.__name__} overrides serve(): here the server's workers accept requests themselves; "
            "override handle_connection() or produce() instead"
        )
    cgilike = handler.produce is SCGIHandler.produce and handler.handle_connection is SCGIHandler.handle_connection
    if threads > 1 and cgilike:
        raise AppLoadError(
            f"{handler.__name__} runs through produce_cgilike(), which changes the process's environment and standard "
            "streams: it cannot run with --threads above 1; override produce() or use more workers"
        )


def _kind(target: Callable[..., Any] | Any) -> str:
    return f"the class {target.__name__}" if isinstance(target, type) else f"{type(target).__name__} {target!r}"[:120]
