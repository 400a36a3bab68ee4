"""Marks that add up, and marks that cannot be meant."""

from __future__ import annotations

import pytest

from .conftest import Project


def test_marks_of_module_class_and_function_add_up(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.nodes(a=Node(memory='1M'), scope='module')\n"
        "@pytest.mark.nodes(b=Node(), a=Node(memory='2M'))\n"
        "class TestIt:\n"
        "    @pytest.mark.nodes(c=Node(), a=Node(memory='3M'))\n"
        "    def test_it(self, nodes):\n"
        "        assert list(nodes) == ['a', 'b', 'c']\n"
        "        assert nodes.topology.nodes['a'].memory == '3M'\n"
        "    def test_other(self, nodes):\n"
        "        assert nodes.topology.nodes['a'].memory == '2M'\n"
    ).run(passed=2)


def test_the_closest_scope_and_start_win(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.nodes(a=Node(), scope='session', start=False)\n"
        "class TestIt:\n"
        "    pytestmark = pytest.mark.nodes(scope='function')\n"
        "    def test_1(self, a): pass\n    def test_2(self, a): pass\n"
        "    @pytest.mark.nodes(start=True)\n    def test_3(self, a): pass\n"
    ).run(passed=3)
    assert project.record == ["boot a", "close a", "boot a", "close a", "boot a", "start a", "close a"]


def test_a_subclass_wins_over_its_base(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node(memory='1M'), b=Node(), scope='class')\n"
        "class Base:\n    def test_it(self, nodes):\n        assert nodes.topology.nodes['a'].memory == self.memory\n"
        "@pytest.mark.nodes(a=Node(memory='2M'))\n"
        "class TestSub(Base):\n    memory = '2M'\n"
        "class TestPlain(Base):\n    memory = '1M'\n"
    ).run(passed=2)
    assert project.boots == ["a b", "a b"]


def test_variants_of_module_and_function_multiply(project: Project) -> None:
    project.write(
        "def t(name): return Topology({name: Node()}, name=name)\n"
        "pytestmark = pytest.mark.nodes(t('a'), t('b'))\n"
        "@pytest.mark.nodes(t('x'), t('y'))\ndef test_it(nodes): pass\n"
    ).run(passed=4)
    assert project.boots == ["a x", "a y", "b x", "b y"]


def test_networks_add_up_and_may_be_subnets(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.networks({1: '10.1.0.0/24'}, lan='10.2.0.0/24', v6='2001:db8::/64')\n"
        "@pytest.mark.networks(lan=Network('10.3.0.0/24'))\n"
        "@pytest.mark.nodes(a=Node(networks=[1, 'lan', 'v6']))\n"
        "def test_it(nodes):\n"
        "    networks = nodes.topology.networks\n"
        "    assert str(networks[1].subnet4) == '10.1.0.0/24'\n"
        "    assert str(networks['lan'].subnet4) == '10.3.0.0/24'\n"
        "    assert str(networks['v6'].subnet6) == '2001:db8::/64'\n"
    ).run(passed=1)


BAD = {
    "twice in two marks on one object": (
        "@pytest.mark.nodes(a=Node())\n@pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: *node 'a' is declared twice on one object*"],
    ),
    "twice by a variant": (
        "@pytest.mark.nodes(Topology({'a': Node()}), a=Node())\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: *node 'a' is declared twice*"],
    ),
    "a network twice": (
        (
            "@pytest.mark.networks({'lan': '10.1.0.0/24'}, lan='10.2.0.0/24')\n"
            "@pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n"
        ),
        ["*test_it.py::test_it: *network 'lan' is declared twice*"],
    ),
    "no such scope": (
        "@pytest.mark.nodes(a=Node(), scope='modul')\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: no such scope: 'modul'; *did you mean 'module'*"],
    ),
    "start": (
        "@pytest.mark.nodes(a=Node(), start='no')\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: start is no truth value: 'no'*"],
    ),
    "a positional node": (
        "@pytest.mark.nodes(Node())\ndef test_it(nodes): pass\n",
        ["*test_it.py::test_it: a positional argument of the nodes mark is no Topology*"],
    ),
    "no host name": (
        "@pytest.mark.nodes(**{'a b': Node()})\ndef test_it(nodes): pass\n",
        ["*test_it.py::test_it: *a b*"],
    ),
    "one identifier for two": (
        "@pytest.mark.nodes(**{'a-b': Node(), 'a_b': Node()})\ndef test_it(nodes): pass\n",
        ["*test_it.py::test_it: *a_b*"],
    ),
    "a malformed size": (
        "@pytest.mark.nodes(a=Node(memory='12Q'))\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: node 'a': *12Q*"],
    ),
    "a malformed subnet": (
        "@pytest.mark.networks(lan='10.0.0.0/99')\n@pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: network 'lan': *10.0.0.0/99*"],
    ),
    "a reserved name": (
        "@pytest.mark.nodes(request=Node())\ndef test_it(): pass\n",
        [
            "*test_it.py::test_it: node 'request': the fixture name 'request' is reserved; call the node something else"
        ],
    ),
    "on a parameter": (
        "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.nodes(a=Node()))])\ndef test_it(n): pass\n",
        ["*test_it.py::test_it[[]1]: the nodes mark does nothing on a pytest.param; write variants*"],
    ),
    "on a TestCase": (
        "@pytest.mark.nodes(a=Node())\nclass TestIt(unittest.TestCase):\n    def test_it(self): pass\n",
        ["*test_it.py::TestIt: a unittest.TestCase cannot have nodes*make it a plain class*"],
    ),
    "on a method of a TestCase": (
        "class TestIt(unittest.TestCase):\n    @pytest.mark.nodes(a=Node())\n    def test_it(self): pass\n",
        ["*test_it.py::TestIt: a unittest.TestCase cannot have nodes*"],
    ),
    "on a fixture": (
        "@pytest.mark.nodes(a=Node())\n@pytest.fixture\ndef page(): pass\ndef test_it(page): pass\n",
        ["*Marks * fixtures*"],
    ),
    "nodes parametrised": (
        ("@pytest.mark.parametrize('nodes', [1])\n@pytest.mark.nodes(a=Node())\ndef test_it(nodes): pass\n"),
        ["*test_it.py::test_it: the fixture 'nodes' is overridden by the test's own parameters; *"],
    ),
    "nodes overridden": (
        "@pytest.fixture\ndef nodes(): pass\n@pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n",
        ["*test_it.py::test_it: the fixture 'nodes' is overridden by test_it.py:4; rename that fixture*"],
    ),
}


@pytest.mark.parametrize(("text", "lines"), BAD.values(), ids=BAD)
def test_a_mark_that_cannot_be_meant_is_one_clear_collection_error(
    project: Project, text: str, lines: list[str]
) -> None:
    result = project.write(text).run(errors=1)
    result.stdout.fnmatch_lines(lines)
    assert project.everything == []


def test_other_items_in_a_marked_module_are_left_alone(project: Project) -> None:
    project.write(
        "'''\n>>> 1 + 1\n2\n'''\npytestmark = pytest.mark.nodes(a=Node())\ndef test_it(a): pass\n"
        "class TestIt(unittest.TestCase):\n    def test_it(self): pass\n"
    ).run("--doctest-modules", passed=2)
    assert project.boots == ["a"]


def test_a_doctest_in_a_marked_module_is_left_alone(project: Project) -> None:
    project.write(
        "pytestmark = pytest.mark.nodes(a=Node())\ndef helper():\n    '''\n    >>> 1 + 1\n    2\n    '''\n"
    ).run("--doctest-modules", passed=1)
    assert project.boots == []


def test_a_suite_with_its_own_nodes_fixture_is_left_alone(project: Project) -> None:
    project.write(
        "@pytest.fixture\ndef nodes():\n    return 7\ndef test_it(nodes):\n    assert nodes == 7\n"
    ).run(passed=1)


AT_SETUP = {
    "an unknown node": (
        "@pytest.mark.nodes(server=Node())\ndef test_it(sever, server): pass\n",
        [
            "test_it.py::test_it: no node and no fixture has the name: 'sever'; *test: server (did you mean 'server'?)"
        ],
    ),
    "the only name is unknown": (
        "pytestmark = pytest.mark.nodes(server=Node())\ndef test_it(sever): pass\n",
        ["test_it.py::test_it: no node and no fixture has the name: 'sever'; *"],
    ),
    "another test's node": (
        (
            "@pytest.mark.skip\n@pytest.mark.nodes(other=Node())\ndef test_other(other): pass\n"
            "@pytest.mark.nodes(server=Node())\ndef test_it(other, server): pass\n"
        ),
        ["test_it.py::test_it: node 'other': the test asks for this node, but no nodes mark*test: server"],
    ),
    "no mark": (
        "def test_it(machine): pass\n",
        ["test_it.py::test_it: the fixture 'machine' needs nodes; declare them*"],
    ),
    "machine of several": (
        "@pytest.mark.nodes(a=Node(), b=Node())\ndef test_it(machine): pass\n",
        ["test_it.py::test_it: 'machine' is the only node*ask for one of a, b"],
    ),
    "no such config": (
        "@pytest.mark.nodes(a='missing/web.nix')\ndef test_it(a): pass\n",
        ["test_it.py::test_it: node 'a': there is no such config: 'missing/web.nix'; mend it"],
    ),
    "asked for too late": (
        "@pytest.mark.nodes(a=Node())\ndef test_it(request):\n    request.getfixturevalue('a')\n",
        ["test_it.py::test_it: the nodes of a test must be known before it runs; ask for them*"],
    ),
}


@pytest.mark.parametrize(("text", "lines"), AT_SETUP.values(), ids=AT_SETUP)
def test_what_a_test_lacks_is_its_own_error_before_anything_boots(
    project: Project, text: str, lines: list[str]
) -> None:
    result = project.write(text + "def test_fine(): pass\n").run("-W", "ignore")
    assert result.ret == 1
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines(lines)
    assert project.boots == []
    assert "live.py" not in result.stdout.str()


def test_a_skipped_test_is_not_looked_at(project: Project) -> None:
    project.write("@pytest.mark.skip\n@pytest.mark.nodes(a=Node())\ndef test_it(a, b): pass\n").run(skipped=1)


def test_a_nodes_fixture_of_a_plugin_is_not_shadowed(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(tmp_path=Node())\ndef test_it(nodes):\n    assert nodes['tmp_path'].name == 'tmp_path'\n"
        "def test_other(tmp_path):\n    assert tmp_path.is_dir()\n"
    ).run(passed=2)
    project.write("@pytest.mark.nodes(tmp_path=Node())\ndef test_it(tmp_path): pass\n")
    project.run(errors=1).stdout.fnmatch_lines(
        [
            "*test_it.py::test_it: node 'tmp_path': the argument 'tmp_path' is the fixture of _pytest.tmpdir, *nodes[[]'tmp_path'], or rename the node"
        ]
    )


OWN = "@pytest.fixture\ndef client(client):\n    client.tuned = True\n    return client\n"


@pytest.mark.parametrize("where", ["conftest", "test_it"])
def test_a_fixture_of_the_users_own_overrides_a_node_and_may_request_it(project: Project, where: str) -> None:
    test = "@pytest.mark.nodes(client=Node())\ndef test_it(client, nodes):\n    assert client.tuned and client is nodes['client']\n"
    if where == "conftest":
        project.write(test, conftest=OWN)
    else:
        project.write(OWN + test)
    project.run(passed=1)


def test_a_test_may_parametrise_the_name_of_a_node(project: Project) -> None:
    project.write(
        "@pytest.mark.nodes(a=Node())\n@pytest.mark.parametrize('a', [1])\ndef test_it(a, nodes):\n    assert a == 1\n"
    ).run(passed=1)
