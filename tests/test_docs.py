"""The documents: links lead somewhere, commands parse, names of code and messages are those of the code; the site."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optirag_core import errors
from ray_jobs.command import parse

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page for form in ("*.md", "docs/**/*.md", "cluster/**/*.md", "benchmarks/**/*.md") for page in ROOT.glob(form)
)
CODE = [file for package in ("optirag_core", "ray_jobs", "serve_apps") for file in (ROOT / package).rglob("*.py")]
MODULE = re.compile(r"python -m ((?:ray_jobs|serve_apps|benchmarks)(?:\.\w+)+|serve_apps\b(?!\.))")
ABSENT = "mkdocs is not installed: pip install -e '.[docs]'"


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_lines(page: Path) -> Iterator[str]:
    """Lines of indented and fenced blocks, those that go on behind a backslash as one, without comments."""
    fenced = False
    for line in text(page).replace("\\\n", " ").splitlines():
        fenced ^= line.lstrip().startswith("```")
        if fenced or line.startswith("    "):
            yield line.strip().removeprefix("$ ").partition(" #")[0]


def own_arguments(module: str) -> tuple[str, ...] | None:
    """Names that a job asks for beside the settings; None where it is no job of the settings alone."""
    tree = ast.parse(text((ROOT / module.replace(".", "/")).with_suffix(".py")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run_job":
            names = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
            return names.get("arguments", ()) if set(names) <= {"arguments"} else None
    return None


def jobs() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for page in PAGES:
        for line in code_lines(page):
            found = re.search(r"python -m (ray_jobs\.\w+) --config", line)
            if found and (arguments := own_arguments(found[1])) is not None:
                yield page.name, line, arguments


def names_of(file: Path) -> set[str]:
    """Functions, classes, and `Class.member`, read without importing."""
    found = set()
    for node in ast.parse(text(file)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{member.name}" for member in node.body if isinstance(member, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text(page)):
        assert re.match(r"[a-z]+:", target) or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "module", sorted({module for page in PAGES for module in MODULE.findall(text(page))}), ids=lambda name: name
)
def test_every_module_that_a_command_names_exists(module):
    place = ROOT / module.replace(".", "/")

    assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def test_every_make_target_exists():
    targets = set(re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it names what there was
    named = {name for page in pages for name in re.findall(r"(?:`|^    )make ([\w-]+)", text(page), re.MULTILINE)}

    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize(("page", "command", "arguments"), list(jobs()))
def test_a_job_command_has_valid_settings(page, command, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "settings.yaml").write_text("seed: 0\n", encoding="utf-8")
    given = {"FILE": str(tmp_path / "settings.yaml"), "DIR": str(tmp_path)}
    words = [given.get(word, word) for word in shlex.split(command)]
    rest = [word for word in words[words.index("-m") + 2 :] if word not in ("--plan", "--dry-run")]

    settings, _ = parse(rest, arguments=arguments)

    assert settings.workspace


def test_there_are_commands_to_test():
    assert len(list(jobs())) >= 20


def test_the_paper_map_names_what_is_there():
    entries = re.findall(r"`([\w/]+\.py)`((?:[:,] `[\w.]+`)*)", text(ROOT / "docs/paper-map.md"))

    assert len(entries) > 40
    for path, listed in entries:
        wanted = set(re.findall(r"`([\w.]+)`", listed))
        assert wanted and wanted <= names_of(ROOT / path), f"{path}: {wanted - names_of(ROOT / path)}"


def test_operations_quotes_messages_of_the_code():
    strings = [node.value for file in CODE for node in ast.walk(ast.parse(text(file))) if _is_text(node)]
    messages = "\n".join(strings).replace("`", "")
    rows = [row for row in text(ROOT / "docs/operations.md").splitlines() if row.startswith("|")]
    quoted = [found for row in rows for found in re.findall(r"`([A-Z]\w+|warning): ([^`]+)`", row)]
    parts = [part.strip(" :;/") for _, message in quoted for part in re.split(r"\.\.\.+", message)]

    assert len(quoted) > 30
    assert all(issubclass(getattr(errors, name), errors.OptiragError) for name, _ in quoted if name != "warning")
    assert [part for part in parts if part not in messages] == []


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_package_of_the_core_has_a_page_of_its_api():
    shown = {name for page in PAGES for name in re.findall(r"^::: optirag_core\.(\w+)", text(page), re.MULTILINE)}

    assert {file.parent.name for file in (ROOT / "optirag_core").glob("*/__init__.py")} <= shown


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip(ABSENT)
    folder = tmp_path_factory.mktemp("site")  # not --quiet: --strict would see no warnings
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_site_has_the_api_and_what_pages_link(site):
    assert 'id="optirag_core.engine.scorer.Scorer.score"' in text(site / "api/engine.html")
    assert (site / "repository/optirag_core/prompting/templates/generic.jinja").is_file()
    assert 'href="repository/index.html' in text(site / "results.html")


@pytest.mark.slow
def test_the_site_fetches_nothing(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"', text(page))
        assert not fetched, page
