"""Workers: each has its own engine and the same names; nobody meets."""

from __future__ import annotations

from .conftest import Project

TEXT = "".join(
    f"@pytest.mark.nodes(server=Node(), client=Node())\ndef test_{number}(server, client):\n    server.succeed('true')\n"
    for number in range(4)
)


def test_equal_names_in_every_worker(project: Project) -> None:
    result = project.write(TEXT).run("-n", "2", passed=4)
    assert project.boots == ["client server"] * 4
    assert 1 <= project.everything.count("engine host") <= 2
    assert result.stdout.str().count("nspawn: image host") == 1


def test_a_session_scoped_cluster_exists_once_a_worker(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.nodes(a=Node(), scope='session')\n"
        "@pytest.mark.parametrize('n', range(8))\ndef test_it(a, n): pass\n"
    ).run("-n", "2", passed=8)
    assert project.boots == ["a", "a"]


def test_loadscope_keeps_a_modules_cluster_on_one_worker(project: Project) -> None:
    text = (
        "pytestmark = pytest.mark.nodes(a=Node(), scope='module')\n"
        "@pytest.mark.parametrize('n', range(4))\ndef test_it(a, n): pass\n"
    )
    project.write(text, test_other=text).run("-n", "2", "--dist", "loadscope", passed=8)
    assert project.boots == ["a", "a"]


def test_sections_and_errors_cross_from_a_worker(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node())\ndef test_it(a):\n    a.succeed('false')\n"
        "@pytest.mark.nodes(broken=Node())\ndef test_boot(broken):\n    broken.succeed('true')\n"
        "@pytest.mark.nodes(a=Node())\ndef test_name(b, a): pass\n"
    )
    project.run("-n", "2", failed=2, errors=1).stdout.fnmatch_lines_random(
        [
            "*CommandFailed: a: command `false` failed*",
            "*- a: journal -*",
            "*BootError: broken: it never got up*",
            "*test_name: no node and no fixture has the name: 'b'*",
        ]
    )
