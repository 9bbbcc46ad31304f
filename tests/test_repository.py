"""What outsiders expect of a repository: its workflow, its templates, its policies."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
GITHUB = REPOSITORY / ".github"


def read_yaml(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_the_workflow_runs_the_test_command_of_the_readme_on_every_supported_python():
    job = read_yaml(GITHUB / "workflows" / "ci.yml")["jobs"]["tests"]
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert job["strategy"]["matrix"]["python"] == supported
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (command,) = (step["run"] for step in job["steps"] if "run" in step)
    assert f"    {command}\n" in readme


def test_a_bug_report_asks_for_the_output_of_the_doctor():
    (question,) = (
        part
        for part in read_yaml(GITHUB / "ISSUE_TEMPLATE" / "bug_report.yml")["body"]
        if part.get("id") == "doctor"
    )
    assert "nnUNetv2_spmc_doctor" in question["attributes"]["label"]
    assert question["validations"]["required"]


def test_nobody_opens_an_issue_past_the_forms():
    assert read_yaml(GITHUB / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": False}


@pytest.mark.parametrize("name", ["bug_report", "question"])
def test_an_issue_template_has_what_github_demands(name):
    content = read_yaml(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(content)
    for part in content["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert "value" in part["attributes"] or "label" in part["attributes"]


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md"])
def test_the_readme_or_contributing_leads_to(page):
    starts = (REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md"))
    text = "".join(start.read_text(encoding="utf-8") for start in starts)
    assert f"({page})" in text
    assert (REPOSITORY / page).is_file()
