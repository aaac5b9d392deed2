"""From what a person writes to an application, and the sentence for every way that goes wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scgi.apps.load import check_application, load_application, prepare_path, refuse_here
from scgi.errors import AppLoadError
from support import short_folder

FILES = {
    "shop.py": """
from scgi.scgi_server import SCGIHandler
from functools import partial

def application(environ, start_response): ...
def other(environ, start_response): ...
def make(): return application
def make_none(): return None
def fails(): raise RuntimeError("no shop today")
def leaves(): raise SystemExit("bye")

class Shop:
    number = 5
    class inner:
        app = staticmethod(application)
    @staticmethod
    def create(): return application

class Object:
    def __call__(self, environ, start_response): ...

class AsyncObject:
    async def __call__(self, scope, receive, send): ...

class ClassApplication:
    def __init__(self, environ, start_response): ...

async def asynchronous(scope, receive, send): ...

object_application = Object()
async_object = AsyncObject()
bound = Object().__call__
wrapped = partial(application)
builtin = dict

class Clock(SCGIHandler):
    def produce(self, env, bodysize, input, output): ...

class Serving(Clock):
    def serve(self): ...

clock_object = Clock(0)
""",
    "only_app.py": "def app(environ, start_response): ...\n",
    "only_handler.py": "from scgi.scgi_server import SCGIHandler\nclass One(SCGIHandler): ...\n",
    "two_handlers.py": "from scgi.util import SCGIHandler\nclass One(SCGIHandler): ...\nclass Two(SCGIHandler): ...\n",
    "nothing.py": "",
    "import_error.py": "import does_not_exist_anywhere\n",
    "from_error.py": "from shop import does_not_exist\n",
    "nested_error.py": "import import_error\n",
    "syntax_error.py": "def application(:\n",
    "value_error.py": "def deep():\n    raise ValueError('bad weather')\n\ndeep()\n",
    "cause_error.py": "try:\n    {}['a']\nexcept KeyError as error:\n    raise ValueError('b') from error\n",
    "exits.py": "import sys\nsys.exit('I will not')\n",
    "exits_3.py": "raise SystemExit(3)\n",
    "lazy.py": "def __getattr__(name):\n    raise RuntimeError('lazily: ' + name)\n",
    "queue.py": "def application(environ, start_response): ...\n",
    "my-app.py": "def application(environ, start_response): ...\n",
    "with.dots.py": "def application(environ, start_response): ...\n",
    "beside.py": "import shop\napplication = shop.application\n",
    "main_guard.py": "def app(e, s): ...\nif __name__ == '__main__':\n    raise RuntimeError\n",
    "serves_class.py": "from scgi.scgi_server import SCGIServer\nSCGIServer(port=0).serve()\n",
    "serves_socket.py": "from scgi.scgi_server import SCGIServer\nSCGIServer().serve_on_socket(None)\n",
    "serves_app.py": "import scgi\ndef app(e, s): ...\nscgi.serve(app, listen='127.0.0.1:0')\n",
    "serves_itself.py": "import scgi\nscgi.serve('serves_itself.py', listen='127.0.0.1:0')\n",
    "serves_deeper.py": "import serves_class\n",
    "serves_when_made.py": "def make():\n    import serves_class\n",
    "package.wsgi": "import package.web\napplication = package.web.application\n",
    "project/__init__.py": "",
    "project/wsgi.py": "from package.web import application\n",
    "script": "",
    "package/__init__.py": "",
    "package/web.py": "from . import parts\napplication = parts.application\n",
    "package/parts.py": "def application(environ, start_response): ...\n",
    "package/broken.py": "from . import missing\n",
    "folder.py/readme": "",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of applications, made the current one, as by `--chdir`; what is imported is forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    prepare_path("", [], {})
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def sentence(name: Any, interface: str = "auto") -> str:
    with pytest.raises(AppLoadError) as refused:
        load_application(name, interface)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "interface", "found"),
    [
        ("shop", "wsgi", "application"),
        ("shop:other", "wsgi", "other"),
        ("shop:make()", "wsgi", "application"),
        ("shop:Shop.inner.app", "wsgi", "application"),
        ("shop:Shop.create()", "wsgi", "application"),
        ("shop:object_application", "wsgi", "Object"),
        ("shop:Object()", "wsgi", "Object"),
        ("shop:bound", "wsgi", "Object.__call__"),
        ("shop:wrapped", "wsgi", "partial"),
        ("shop:ClassApplication", "wsgi", "ClassApplication"),
        ("shop:builtin", "wsgi", "dict"),
        ("shop:Clock", "handler", "Clock"),
        ("only_app", "wsgi", "app"),
        ("only_handler", "handler", "One"),
        ("two_handlers:Two", "handler", "Two"),
        ("package.web", "wsgi", "application"),
        ("package.web:parts.application", "wsgi", "application"),
        ("shop.py", "wsgi", "application"),
        ("package.wsgi", "wsgi", "application"),  # and does not stand for the package of that name
        ("project.wsgi", "wsgi", "application"),  # a module, as there is no such file
        ("./shop.py:other", "wsgi", "other"),
        ("shop.py:make()", "wsgi", "application"),
        ("only_handler.py", "handler", "One"),
        ("queue.py", "wsgi", "application"),
        ("my-app.py", "wsgi", "application"),
        ("with.dots.py:application", "wsgi", "application"),
        ("beside.py", "wsgi", "application"),
        ("main_guard.py", "wsgi", "app"),
        ("package/parts.py", "wsgi", "application"),
        ("scgi.scgi_server:SCGIHandler", "handler", "SCGIHandler"),
    ],
)
def test_every_form_of_a_name_finds_its_application(name: str, interface: str, found: str) -> None:
    application = load_application(name)
    assert application.interface == interface
    assert application.name == name
    target = application.target
    assert getattr(target, "__qualname__", type(target).__qualname__) == found


def test_a_path_may_be_absolute_and_its_folder_need_not_be_on_pythons_path(folder: Path) -> None:
    sys.path.remove(str(folder))
    assert load_application(str(folder / "beside.py")).interface == "wsgi"


def test_a_file_called_like_a_module_of_python_hides_it_from_nobody() -> None:
    import queue

    assert load_application("queue.py").target.__module__ != "queue"
    assert sys.modules["queue"] is queue


def test_a_file_that_is_imported_by_others_is_loaded_once() -> None:
    application = load_application("shop.py:other").target
    assert sys.modules["shop"].other is application


def test_the_interface_may_be_given() -> None:
    assert load_application("shop:Clock", "handler").interface == "handler"
    assert load_application("shop", "wsgi").interface == "wsgi"
    assert sentence("shop:Clock", "wsgi") == "shop:Clock: expected a WSGI callable, found the class Clock"
    assert re.match(
        r"shop:application: expected a subclass of SCGIHandler, found function <",
        sentence("shop:application", "handler"),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nope", "there is no module 'nope' in .* or elsewhere on Python's path; use --chdir or --pythonpath"),
        ("nope.deeper:app", "there is no module 'nope' in "),
        ("package.nope:app", "there is no module 'package.nope' in "),
        ("shop.deeper", "there is no module 'shop.deeper' in "),
        ("nope.py", "there is no file /.*/nope.py$"),
        ("folder.py", "there is no file /.*/folder.py$"),
        ("script", "there is no module 'script'"),
        (
            "./script",
            "expected MODULE:ATTRIBUTE or a path to a .py file, got './script'; a file's name must end in .py or .wsgi",
        ),
        ("package/web", "expected MODULE:ATTRIBUTE or a path to a .py file, got 'package/web'$"),
        ("my-app", "expected MODULE:ATTRIBUTE or a path to a .py file, got 'my-app'$"),
        ("", "expected MODULE:ATTRIBUTE or a path to a .py file, got ''$"),
        (":app", "expected MODULE:ATTRIBUTE or a path to a .py file, got ':app'$"),
        ("shop:", "expected MODULE:ATTRIBUTE or a path to a .py file, got 'shop:'$"),
        ("shop:make(1)", r"expected ATTRIBUTE or FACTORY\(\) after shop:, got 'make\(1\)'"),
        ("shop:a b", "expected ATTRIBUTE or FACTORY"),
        ("shop:Shop..inner", "expected ATTRIBUTE or FACTORY"),
        ("shop:aplication", "shop has no 'aplication'; did you mean 'application'[?]$"),
        ("shop:zzz", r"shop has no 'zzz' \(it has: AsyncObject, ClassApplication, Clock, Object, "),
        ("shop:Shop.inner.ap", r"shop.Shop.inner has no 'ap'; did you mean 'app'[?]$"),
        ("shop:Shop.number.x", r"shop.Shop.number has no 'x'$"),
        ("nothing:app", "nothing has no 'app'$"),
        ("nothing", "nothing: expected 'application', 'app' or one SCGIHandler subclass; .*: nothing:ATTRIBUTE$"),
        ("two_handlers.py", r"name what to serve: two_handlers.py:ATTRIBUTE \(it has: One, Two\)$"),
        ("logging:app", "logging has no 'app': it is a module of Python itself .*; give your file's path, or rename"),
        ("shop:Shop.number", "expected a WSGI callable or a SCGIHandler subclass, found int 5$"),
        ("shop:make_none()", "expected a WSGI callable or a SCGIHandler subclass, found NoneType None$"),
        ("shop:clock_object", "found Clock <.*>; give the class, not an object of it$"),
        ("shop:Serving", r"Serving overrides serve\(\)"),
        ("shop:asynchronous", r"found function <.*>, which is asynchronous \(ASGI\)$"),
        ("shop:async_object", r"found AsyncObject <.*>, which is asynchronous \(ASGI\)$"),
        ("shop:make", r"cannot be called with \(environ, start_response\); if it makes the .*, write shop:make\(\)$"),
        ("shop:Object", r"found the class Object, which cannot be called with .* write shop:Object\(\)$"),
    ],
)
def test_what_cannot_be_loaded_gets_a_sentence(name: str, expected: str) -> None:
    assert re.search(expected, sentence(name)), sentence(name)


@pytest.mark.parametrize("form", ["{}", "{}.py"])
@pytest.mark.parametrize(
    ("name", "expected", "frames"),
    [
        ("import_error", "ModuleNotFoundError: No module named 'does_not_exist_anywhere'", ["import_error.py"]),
        ("from_error", "ImportError: cannot import name 'does_not_exist'", ["from_error.py"]),
        ("nested_error", "No module named 'does_not_exist_anywhere'", ["nested_error.py", "import_error.py"]),
        ("value_error", "ValueError: bad weather", ["value_error.py", "value_error.py"]),
        ("syntax_error", "SyntaxError: invalid syntax", ["syntax_error.py"]),
        ("cause_error", "ValueError: b", ["cause_error.py", "cause_error.py"]),
        ("exits", "exits(.py)? cannot be imported: it called sys.exit\\('I will not'\\)", ["exits.py"]),
        ("exits_3", "it called sys.exit\\(3\\)", ["exits_3.py"]),
    ],
)
def test_the_applications_own_exception_shows_its_frames_and_none_of_ours(
    form: str, name: str, expected: str, frames: list[str]
) -> None:
    with pytest.raises(AppLoadError) as refused:
        load_application(form.format(name))
    error = refused.value
    assert re.search(expected, str(error))
    assert str(error).startswith(f"{form.format(name)} cannot be imported: ")
    assert [Path(file).name for file in re.findall(r'File "([^"]+)"', error.traceback)] == frames
    assert error.__cause__ is None and error.__suppress_context__
    assert name not in sys.modules


def test_a_module_that_a_package_misses_is_the_applications_own_error() -> None:
    assert "cannot be imported: ImportError: cannot import name 'missing'" in sentence("package.broken:app")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop:fails()", "shop:fails() failed: RuntimeError: no shop today"),
        ("shop:leaves()", "shop:leaves() failed: it called sys.exit('bye')"),
        ("lazy:app", "lazy:app failed: RuntimeError: lazily: app"),
    ],
)
def test_a_factory_that_raises_shows_its_frames_and_none_of_ours(name: str, expected: str) -> None:
    with pytest.raises(AppLoadError) as refused:
        load_application(name)
    assert str(refused.value) == expected
    (frame,) = re.findall(r'File "([^"]+)"', refused.value.traceback)
    assert frame.endswith(name.partition(":")[0] + ".py")


@pytest.mark.parametrize("form", ["{}", "{}.py"])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("serves_class", "SCGIServer.serve()"),
        ("serves_socket", "SCGIServer.serve_on_socket()"),
        ("serves_app", "scgi.serve()"),
        ("serves_itself", "scgi.serve()"),
        ("serves_deeper", "SCGIServer.serve()"),
    ],
)
def test_a_file_that_serves_while_it_is_loaded_is_told_where_to_put_the_call(form: str, name: str, call: str) -> None:
    name = form.format(name)
    assert sentence(name) == (
        f"{name} calls {call} while it is being loaded: "
        "put the call under 'if __name__ == \"__main__\":', or run the file with python"
    )
    refuse_here(call)  # the refused one is no longer being loaded


def test_a_factory_that_serves_is_told_the_same() -> None:
    assert sentence("serves_when_made:make()").startswith("serves_when_made calls SCGIServer.serve() while it is being")


def test_a_plain_function_that_is_no_factory_is_not_taken_for_one() -> None:
    assert sentence("json:dumps").endswith(", which cannot be called with (environ, start_response)")


@pytest.mark.parametrize("hidden", ["", "app.py"])
def test_what_may_not_be_read_is_not_said_to_be_missing(hidden: str) -> None:
    user = os.geteuid()
    with short_folder() as folder:
        file = folder / "sub/app.py"
        file.parent.mkdir()
        file.write_text("def app(environ, start_response): ...\n")
        folder.chmod(0o755)
        (file.parent / hidden).chmod(0)
        try:
            if user == 0:  # who may read everything
                os.seteuid(65534)
            told = sentence(str(file))
        finally:
            os.seteuid(user)
            file.parent.chmod(0o700)
    assert told == f"{file} cannot be read: Permission denied"


def test_ctrl_c_during_an_import_is_nobodys_error(folder: Path) -> None:
    (folder / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    for name in ("interrupted", "interrupted.py"):
        with pytest.raises(KeyboardInterrupt):
            load_application(name)


def test_an_object_that_is_there_is_judged_the_same_way() -> None:
    def application(environ: Any, start_response: Any) -> Any: ...

    found = check_application(application)
    assert (found.target, found.interface) == (application, "wsgi")
    assert found.name.endswith("application")
    with pytest.raises(AppLoadError, match="expected a WSGI callable or a SCGIHandler subclass, found int 5"):
        check_application(5)


def test_paths_come_first_in_their_order_and_the_current_folder_before_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIVEN", "before")
    prepare_path(str(folder / "package"), ["..", "../folder.py", ".."], {"GIVEN": "here"})
    assert sys.path[:3] == [str(folder / "package"), str(folder), str(folder / "folder.py")]
    assert os.environ["GIVEN"] == "here"
    with pytest.raises(AppLoadError, match="cannot change to the folder /nowhere/at/all: No such file"):
        prepare_path("/nowhere/at/all", [], {})
