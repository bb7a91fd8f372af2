"""Fixtures of all tests. Tests that are coroutines run in a fresh event loop each; no plugin is needed."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import shutil
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BODY_WITHIN = 40.0
"""Seconds that one coroutine test may take."""


def pytest_configure(config: pytest.Config) -> None:
    """A run that is terminated stops its servers, as one that is interrupted does; subprocesses buffer as usual."""
    os.environ.pop("PYTHONUNBUFFERED", None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs tests that are coroutine functions."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    from drivers import run_body

    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(run_body(pyfuncitem.obj(**arguments), BODY_WITHIN))
    return True


@pytest.fixture(autouse=True, scope="module")
def old_objects() -> None:
    """Keeps what was imported and reported so far out of later collections of garbage: tests collect often."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_proxies_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of tests go to loopback, whatever the environment says."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def leaks() -> Iterator[None]:
    """Fails the test if it leaves open files or threads behind."""
    from drivers import Leaks

    before = Leaks()
    yield
    gc.collect()
    before.check()


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest, leaks: None) -> Any:
    """The blocking client, then the async one."""
    from drivers import AsyncDriver, SyncDriver

    return AsyncDriver() if request.param == "async" else SyncDriver()


@pytest.fixture
def async_driver(leaks: None) -> Any:
    """The async client, for what only tasks can do."""
    from drivers import AsyncDriver

    return AsyncDriver()


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """`need("nginx", "/usr/sbin/nginx")`: skips where a Debian package is missing, and fails under CI."""

    def need(package: str, program: str) -> str:
        found = shutil.which(program) or (program if Path(program).exists() else None)
        if found:
            return found
        reason = f"the Debian package {package} is not installed ({program})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return need


# === TLS with a private CA ===


class Authority:
    """A certificate authority that no system trusts."""

    def __init__(self) -> None:
        import trustme

        self.ca = trustme.CA()

    def server(self, *names: str) -> ssl.SSLContext:
        """A server's context, with a certificate for `names`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names or ("127.0.0.1", "localhost")).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts this authority, and no other: loading the system's takes long."""
        return ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
