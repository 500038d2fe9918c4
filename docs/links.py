"""A hook of MkDocs: links that leave docs/ work in the site as they do in a checkout.

In the site a file from outside of docs/ lies at repository/<its path>: Markdown as a page, everything else as it is. A
link to a folder leads to its README.md, or becomes its text.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "cluster/README.md", "cluster/kuberay/README.md")
OUTSIDE = "repository/"
LINK = re.compile(r"(?P<shown>!?\[[^\[\]]*\])\((?P<target>[^)\s:#]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, and whatever a page links there."""
    waiting = [page for page in PAGES if (ROOT / page).is_file()]
    waiting += [each for file in files.documentation_pages() for each in _linked(_in_repository(file.src_uri))]
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(_in_site(path)) is None:
            files.append(File.generated(config, _in_site(path), abs_src_path=str(ROOT / path)))
            waiting += _linked(path) if path.endswith(".md") else ()
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where their files lie in the site."""
    here = _in_repository(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        path = _target(here, link["target"])
        if (ROOT / path).is_dir():
            return link["shown"][1:-1]
        if not (ROOT / path).is_file():
            return link[0]  # MkDocs says that it is broken
        to = posixpath.relpath(_in_site(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{link['shown']}({to}{link['anchor'] or ''})"

    return LINK.sub(moved, markdown)


def _linked(page: str) -> Iterator[str]:
    """Files outside of docs/ that a page of the repository links."""
    for link in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
        path = _target(page, link["target"])
        if not path.startswith("docs/") and (ROOT / path).is_file():
            yield path


def _target(page: str, target: str) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def _in_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE + path


def _in_repository(uri: str) -> str:
    return uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else f"docs/{uri}"
