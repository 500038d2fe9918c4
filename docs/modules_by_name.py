"""An extension of Griffe: the modules of a package in the order of their names, not in the one of the file system."""

from typing import Any

import griffe


class ModulesByName(griffe.Extension):
    """Sorts modules; what is inside of a module keeps its order."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Sort a package that was read, and those in it."""
        modules = {name: member for name, member in sorted(pkg.members.items()) if isinstance(member, griffe.Module)}
        pkg.members = {**{name: pkg.members[name] for name in pkg.members if name not in modules}, **modules}
        for module in modules.values():
            self.on_package(pkg=module)
