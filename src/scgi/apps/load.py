"""From what a person writes (`module:attribute`, `path/to/file.py`) to an application and its kind.

Every way to fail is an `AppLoadError` with one sentence; if the application's own code raised, its traceback comes
along, without our frames.

Imports `errors` and its neighbours.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import re
import stat
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from scgi.apps.handler import SCGIHandler
from scgi.errors import AppLoadError, ScgiError

INTERFACES: Final = ("auto", "wsgi", "handler")
_USUAL_NAMES: Final = ("application", "app")
_loading = ""  # the application whose code runs in `load_application`
_ATTRIBUTE: Final = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(\(\))?\Z")


@dataclass(frozen=True, slots=True)
class Application:
    """A loaded application: the object, its kind (`wsgi` or `handler`) and the name it was asked for by."""

    target: Any
    interface: str
    name: str


def load_application(name: str, interface: str = "auto") -> Application:
    """Load what `name` names. Raises `AppLoadError`.

    `name` is `module`, `module:attribute`, `module:factory()`, `path/to/file.py` or `path/to/file.py:attribute`, where
    `.wsgi` does as well, the name that such files have with mod_wsgi;
    without an attribute, `application`, `app` or the file's only `SCGIHandler` subclass is taken.
    """
    global _loading
    place, attribute = _parts(name)
    before, _loading = _loading, place
    try:
        module = _import_file(place) if _is_a_file(place) else _import_module(place)
        target = _find(module, place, attribute)
    finally:
        _loading = before
    return Application(target, _interface(target, interface, name), name)


def check_application(target: Any, interface: str = "auto") -> Application:
    """The same for an object that is there already. Raises `AppLoadError`."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return Application(target, _interface(target, interface, name), name)


def refuse_here(call: str) -> None:
    """A server that would start inside of another's start, or where no signal can reach it. Raises `ScgiError`."""
    if _loading:
        raise AppLoadError(
            f"{_loading} calls {call} while it is being loaded: "
            "put the call under 'if __name__ == \"__main__\":', or run the file with python"
        )
    if threading.current_thread() is not threading.main_thread():
        raise ScgiError(f"{call} was called in a thread: call it in the main thread, the only one that signals reach")


def _parts(name: str) -> tuple[str, str]:
    place, colon, attribute = name.rpartition(":")
    if not colon:
        return name, ""
    if not place or not attribute:
        raise AppLoadError(f"application: expected MODULE:ATTRIBUTE or a path to a .py file, got {name!r}")
    return place, attribute


def _is_a_file(place: str) -> bool:
    """`shop.wsgi` may be a module too: it is what Django calls a project's."""
    return place.endswith(".py") or (place.endswith(".wsgi") and ("/" in place or os.path.exists(place)))


def prepare_path(chdir: str, paths: Sequence[str], environ: Mapping[str, str]) -> None:
    """Where the application looks for its files and modules, before it is loaded. Raises `AppLoadError`."""
    if chdir:
        try:
            os.chdir(chdir)
        except OSError as error:
            raise AppLoadError(f"cannot change to the folder {chdir}: {error.strerror}") from None
    os.environ.update(environ)
    for path in (*map(os.path.abspath, reversed(paths)), os.getcwd()):
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, path)


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise AppLoadError(
            f"application: expected MODULE:ATTRIBUTE or a path to a .py file, got {name!r}"
            + ("; a file's name must end in .py or .wsgi" if os.path.exists(name) else "")
        )
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise AppLoadError(
                f"there is no module {error.name!r} in {Path.cwd()} or elsewhere on Python's path; "
                "use --chdir or --pythonpath to say where it is"
            ) from None
        raise _raised(name, error) from None
    except BaseException as error:
        raise _raised(name, error) from None


def _import_file(place: str) -> ModuleType:
    path = os.path.abspath(place)
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
        if is_file:
            open(path, "rb").close()
    except PermissionError as error:
        raise AppLoadError(f"{path} cannot be read: {error.strerror}") from None
    except (OSError, ValueError):  # ValueError: a NUL in it
        is_file = False
    if not is_file:
        raise AppLoadError(f"there is no file {path}")
    folder, stem = os.path.dirname(path), Path(path).stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = stem
    # trac.wsgi imports the package trac, and must not be that itself.
    if not path.endswith(".py") or not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"scgi_application_{re.sub(r'[^0-9A-Za-z_]', '_', stem)}"
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _raised(place, error) from None
    return module


def _raised(place: str, error: BaseException, what: str = "cannot be imported") -> AppLoadError:
    """The application's own exception: keep its traceback, from its first frame on."""
    if isinstance(error, AppLoadError):
        return error
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    if isinstance(error, SystemExit):
        sentence = f"{place} {what}: it called sys.exit({error.code!r})"
    else:
        sentence = f"{place} {what}: {type(error).__name__}: {error}"
    return AppLoadError(sentence, traceback=text)


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or filename == importlib.__file__


def _find(module: ModuleType, place: str, attribute: str) -> Any:
    if not attribute:
        return _find_usual(module, place)
    match = _ATTRIBUTE.match(attribute)
    if match is None:
        raise AppLoadError(f"application: expected ATTRIBUTE or FACTORY() after {place}:, got {attribute!r}")
    target: Any = module
    where = place
    try:
        for part in match[1].split("."):
            if not hasattr(target, part):
                raise AppLoadError(f"{where} has no {part!r}{_instead(module, target, part)}")
            target = getattr(target, part)
            where = f"{where}.{part}"
        return target() if match[2] else target
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _raised(f"{place}:{attribute}", error, "failed") from None


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
        f"name what to serve: {place}:ATTRIBUTE{_instead(module, module, '')}"
    )


def _instead(module: ModuleType, owner: Any, missing: str) -> str:
    """What may have been meant by `missing`: a name like it, else what could be served at all."""
    if module.__name__ in sys.stdlib_module_names:
        return f": it is a module of Python itself ({module.__name__}); give your file's path, or rename it"
    try:
        names = {name: value for name, value in vars(owner).items() if not name.startswith("_")}
    except TypeError:  # an object without a __dict__
        return ""
    if alike := difflib.get_close_matches(missing, names, 1):
        return f"; did you mean {alike[0]!r}?"
    own = sorted(name for name, value in names.items() if callable(value) and not _is_imported(value, module))
    return f" (it has: {', '.join(own[:8])})" if own else ""


def _is_imported(value: Any, module: ModuleType) -> bool:
    is_definition = inspect.isclass(value) or inspect.isroutine(value)
    return is_definition and getattr(value, "__module__", None) != module.__name__


def _interface(target: Any, asked: str, name: str) -> str:
    is_handler = isinstance(target, type) and issubclass(target, SCGIHandler)
    if asked == "handler" or (is_handler and asked != "wsgi"):
        if not isinstance(target, type):
            raise AppLoadError(f"{name}: expected a subclass of SCGIHandler, found {_kind(target)}")
        refuse_unrunnable(target)
        return "handler"
    if is_handler or not callable(target):
        expected = "a WSGI callable" if asked == "wsgi" else "a WSGI callable or a SCGIHandler subclass"
        hint = "; give the class, not an object of it" if isinstance(target, SCGIHandler) else ""
        raise AppLoadError(f"{name}: expected {expected}, found {_kind(target)}{hint}")
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None)):  # noqa: B004
        raise AppLoadError(f"{name}: expected a WSGI callable, found {_kind(target)}, which is asynchronous (ASGI)")
    if not _can_be_called(target, {}, None):
        factory = f"; if it makes the application, write {name}()" if _can_be_called(target) else ""
        raise AppLoadError(
            f"{name}: expected a WSGI callable, found {_kind(target)}, "
            f"which cannot be called with (environ, start_response){factory}"
        )
    return "wsgi"


def _can_be_called(target: Any, *arguments: Any) -> bool:
    try:
        inspect.signature(target).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # no signature to be had, as with some of C
        pass
    return True


def refuse_unrunnable(handler: object, threads: int = 1) -> None:
    """A handler class that the workers could not run as its author means it. Raises `AppLoadError`.

    Of a callable that makes handlers nothing is known before it is called.
    """
    if not isinstance(handler, type) and callable(handler):
        return
    if not isinstance(handler, type) or not issubclass(handler, SCGIHandler):
        hint = "; give the class itself" if isinstance(handler, SCGIHandler) else ""
        raise AppLoadError(f"expected a subclass of SCGIHandler, found {_kind(handler)}{hint}")
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


def _kind(target: Any) -> str:
    return f"the class {target.__name__}" if isinstance(target, type) else f"{type(target).__name__} {target!r}"[:120]
