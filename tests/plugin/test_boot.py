"""When nodes boot, for whom, and for how long."""

from __future__ import annotations

import pytest

from .conftest import Project

TWO = "@pytest.mark.nodes(server=Node(), client=Node())\n"


def test_a_node_is_a_fixture_under_its_own_name(project: Project) -> None:
    project.write(
        TWO + "def test_it(client, server):\n    assert (client.name, server.name) == ('client', 'server')\n"
    ).run(passed=1)
    assert project.everything == [
        "engine host",
        "boot client server",
        "start client",
        "start server",
        "close client server",
        "engine closed",
    ]


def test_characters_that_no_identifier_has_become_underscores(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(**{'web-1': Node()})\ndef test_it(web_1, nodes):\n    assert web_1 is nodes['web-1']\n"
    ).run(passed=1)


def test_a_config_may_stand_for_a_node(project: Project) -> None:
    (project.pytester.path / "web.nix").write_text("{}")
    project.write("@pytest.mark.nodes(server='web.nix')\ndef test_it(server): pass\n").run(passed=1)


def test_a_mark_alone_boots_nothing_and_warns(project: Project) -> None:
    project.write(TWO + "def test_it(): pass\n")
    result = project.run("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(
        ["*test_it.py:4: NspawnWarning: nothing asks for the nodes*client, server*usefixtures*"]
    )
    assert project.everything == []


def test_a_mark_of_the_module_that_one_test_leaves_alone_is_no_warning(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.nodes(server=Node())\ndef test_a(server): pass\ndef test_b(): pass\n"
    ).run(passed=2)
    assert project.boots == ["server"]


def test_usefixtures_forces_it(project: Project) -> None:
    project.write(TWO + "@pytest.mark.usefixtures('nodes')\ndef test_it(): pass\n").run(passed=1)
    assert project.boots == ["client server"]


def test_a_fixture_of_the_test_may_ask(project: Project) -> None:
    project.write(
        "@pytest.fixture(scope='module')\ndef page(server):\n    return server.name\n"
        + TWO
        + "def test_it(page):\n    assert page == 'server'\n"
    ).run(passed=1)
    assert project.boots == ["client server"]


def test_start_false_boots_with_the_first_command(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node(), b=Node(), start=False)\ndef test_it(a, b):\n    a.succeed('true')\n"
    ).run(passed=1)
    assert project.record == ["boot a b", "start a", "close a b"]


def test_a_function_has_its_cluster_for_itself(project: Project) -> None:
    project.write(TWO + "def test_a(client): pass\n" + TWO + "def test_b(client): pass\n").run(passed=2)
    assert project.boots == ["client server"] * 2


def test_equal_topology_and_scope_share_a_cluster_over_files(project: Project) -> None:
    mark = "@pytest.mark.nodes(server=Node(), scope='session')\n"
    text = (
        mark
        + "def test_a(server): pass\n"
        + TWO
        + "def test_b(server): pass\n"
        + mark
        + "def test_c(server): pass\n"
    )
    result = project.write(text, test_other=text).run("-v", passed=6)
    assert project.boots == ["server", "client server", "client server"]
    result.stdout.fnmatch_lines(
        [
            f"{name}*"
            for name in (
                "test_it.py::test_a",
                "test_it.py::test_c",
                "test_other.py::test_a",
                "test_other.py::test_c",
                "test_it.py::test_b",
                "test_other.py::test_b",
            )
        ]
    )


def test_a_function_never_gets_a_sessions_dirty_cluster(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node(), scope='session')\ndef test_1(a):\n    a.dirty = True\n"
        "@pytest.mark.nodes(a=Node())\ndef test_2(a):\n    assert not hasattr(a, 'dirty')\n"
    ).run(passed=2)
    assert project.boots == ["a", "a"]


@pytest.mark.parametrize(("scope", "boots"), [("module", 2), ("class", 4), ("package", 1), ("session", 1)])
def test_scopes_are_those_of_fixtures(project: Project, scope: str, boots: int) -> None:
    text = (
        f"pytestmark = pytest.mark.nodes(a=Node(), scope='{scope}')\n"
        "class TestA:\n    def test_1(self, a): pass\n    def test_2(self, a): pass\n"
        "class TestB:\n    def test_1(self, a): pass\n"
    )
    project.write(text, test_other=text).run(passed=6)
    assert project.boots == ["a"] * boots


def test_packages_do_not_share_a_package_scoped_cluster(project: Project) -> None:
    text = "@pytest.mark.nodes(a=Node(), scope='package')\ndef test_1(a): pass\n"
    project.write("", **{"one/__init__": "", "one/test_a": text, "one/test_b": text})
    for name, source in (("two/__init__", ""), ("two/test_c", text)):
        path = project.pytester.path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("import pytest\nfrom pytest_nspawn import Node\n" + source)
    project.run(passed=3)
    assert project.boots == ["a", "a"]


def test_tests_that_share_a_cluster_run_side_by_side(project: Project) -> None:
    red, blue = (
        f"@pytest.mark.nodes({name}=Node(), scope='module')\ndef test_{name}{{}}({name}): pass\n"
        for name in ("red", "blue")
    )
    text = (
        "".join(each.format(number) for number in (1, 2) for each in (red, blue)) + "def test_plain(): pass\n"
    )
    result = project.write(text).run("-v", passed=5)
    assert project.boots == ["red", "blue"]
    result.stdout.fnmatch_lines([f"*::test_{name} *" for name in ("red1", "red2", "blue1", "blue2", "plain")])


def test_variants_run_the_test_once_for_each(project: Project) -> None:
    project.write(
        "ONE = Topology({'a': Node()}, name='one')\nTWO = Topology({'a': Node(), 'b': Node()}, name='two')\n"
        "@pytest.mark.nodes(ONE, TWO, client=Node())\ndef test_it(nodes, client): pass\n"
    )
    project.run("-v", passed=2).stdout.fnmatch_lines(
        ["*::test_it[[]one] PASSED*", "*::test_it[[]two] PASSED*"]
    )
    assert project.boots == ["a client", "a b client"]


def test_one_variant_leaves_the_id_as_it_is(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(Topology({'a': Node()}, name='one'))\n"
        "@pytest.mark.parametrize('n', [1])\ndef test_it(a, n): pass\n"
    )
    project.run("-v", passed=1).stdout.fnmatch_lines(["*::test_it[[]1] PASSED*"])


def test_machine_is_the_node_of_that_name_or_the_only_one(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(machine=Node(), other=Node())\ndef test_a(machine):\n    assert machine.name == 'machine'\n"
        "@pytest.mark.nodes(web=Node())\ndef test_b(machine, web):\n    assert machine is web\n"
    ).run(passed=2)


def test_nodes_known_only_at_run_time(project: Project) -> None:
    project.write(
        "def test_it(nspawn):\n"
        "    with nspawn.boot(Topology({'a': Node()}), b=Node()) as nodes:\n        assert list(nodes) == ['a', 'b']\n"
        "    with nspawn.boot(c=Node()) as nodes:\n        nodes['c'].succeed('true')\n"
    ).run(passed=1)
    assert [line for line in project.record if not line.startswith("start")] == [
        "boot a b",
        "close a b",
        "boot c",
        "close c",
    ]


def test_getfixturevalue_finds_nodes_that_the_test_declares_to_use(project: Project) -> None:
    project.write(
        TWO + "@pytest.mark.usefixtures('nodes')\ndef test_it(request):\n"
        "    assert request.getfixturevalue('server').name == 'server'\n"
    ).run(passed=1)


@pytest.mark.parametrize(
    "option",
    ["--collect-only", "--fixtures", "--fixtures-per-test", "--setup-plan", "--setup-only", "--markers"],
)
def test_what_runs_no_tests_boots_nothing(project: Project, option: str) -> None:
    project.write(
        "@pytest.fixture\ndef page(server):\n    return server.succeed('curl')\n"
        + TWO
        + "def test_it(page, server, client, nspawn): pass\n"
    )
    result = project.run(option)
    assert result.ret == 0
    assert project.everything == []


def test_node_fixtures_are_listed(project: Project) -> None:
    project.write(TWO + "def test_it(server, client): pass\n")
    project.run("--fixtures").stdout.fnmatch_lines(
        ["server [[]session scope] -- *fixtures.py:*", "*The node 'server' of a test's nodes mark."]
    )


def test_setup_show_names_the_nodes(project: Project) -> None:
    project.write(TWO + "def test_it(server, client): pass\n")
    project.run("--setup-show", passed=1).stdout.fnmatch_lines(["*SETUP * nodes*<client, server>*"])


def test_without_the_plugin_nothing_is_there(project: Project) -> None:
    project.pytester.makepyfile("def test_it(nspawn): pass")
    project.pytester.runpytest_inprocess("-p", "no:nspawn").stdout.fnmatch_lines(
        ["*fixture 'nspawn' not found*"]
    )
