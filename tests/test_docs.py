"""What the documents name is there, and what is there is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tciafs.cli import main
from tciafs.config import Config
from tciafs.demo.service import endpoints

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_map_names_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path for path in (ROOT / "tciafs").rglob("*.py") if not path.name.startswith("__")}
    rooms = {path.parent.name for path in modules} - {"tciafs"}
    named = {path.name for path in modules if path.parent.name != "demo"}
    assert {name for name in named if name not in text} == set()
    assert {room for room in rooms if f"{room}/" not in text} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_readme_names_commands_and_settings_that_are_there():
    text = (ROOT / "README.md").read_text()
    mount = main.commands["mount"]
    options = {name for parameter in mount.params for name in parameter.opts if name.startswith("--")}
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= options
    assert set(re.findall(r"(?:`|\$ |bin/)tciafs ([a-z]+)", text)) <= set(main.commands)


def test_every_dependency_has_its_reason():
    parts = (ROOT / "docs" / "architecture.md").read_text().partition("## Parts, chosen")[2]
    project = (ROOT / "pyproject.toml").read_text()
    names = re.findall(r'^    "([A-Za-z0-9-]+)[>=<]', project, re.MULTILINE)
    assert len(names) > 15
    assert {name for name in names if name.lower() not in parts.lower()} == set()


def test_defaults_that_the_documents_state_are_those_of_the_program():
    assert Config.cache_size == 20 << 30
    assert "20 GiB unless you say otherwise" in re.sub(r"\s+", " ", (ROOT / "README.md").read_text())


def test_every_endpoint_has_its_use_or_its_reason():
    told = (ROOT / "docs" / "api-requests.md").read_text().partition("## Every endpoint")[2]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", told, re.MULTILINE)
    named = {name for names, _, _ in rows for name in names.split(", ")}
    assert len(named) > 50
    served = {name for version in ("v1", "v2", "v4", "") for name in endpoints(version)}
    assert served - named == set()
    source = "".join(path.read_text() for path in (ROOT / "tciafs" / "archives").glob("*.py"))
    asked = set(re.findall(r'"(?:v[124]/)?(get[A-Z]\w+|oauth/token)"', source))
    assert len(asked) > 15
    assert asked - named == set()
    refused = {name for names, _, why in rows for name in names.split(", ") if why.startswith("no:")}
    assert asked & refused == set()
