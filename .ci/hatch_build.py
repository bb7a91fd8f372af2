"""Puts each module into the wheel a second time, as its own stubs.

Type checkers ignore `py.typed` beside a single module, but read a stub package of its name. An editable
install goes without: its copies would be out of date after the next change.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface[Any]):
    """Adds `NAME-stubs/__init__.pyi` for each module NAME."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the modules out of the project: hatchling takes a file of its own only once."""
        if version == "editable":
            return
        self.copies = TemporaryDirectory()
        for module in ("sse", "httpclient"):
            copy = shutil.copy(Path(self.root, f"{module}.py"), self.copies.name)
            build_data["force_include"][copy] = f"{module}-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Drop the copies once the wheel is written."""
        if version != "editable":
            self.copies.cleanup()
