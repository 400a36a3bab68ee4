from __future__ import annotations

import json

from pytest_nspawn.nixbuild.progress import Log


def log(*events: dict[str, object]) -> Log:
    result = Log()
    for event in events:
        result.add(f"@nix {json.dumps(event)}\n")
    return result


BUILD = {
    "action": "start",
    "id": 2,
    "type": 105,
    "fields": ["/nix/store/00000000000000000000000000000000-nginx-1.26.drv", "", 1, 1],
}
BUILDS = [
    {"action": "start", "id": 1, "type": 104},
    {"action": "result", "id": 1, "type": 105, "fields": [3, 10, 1, 0]},
]


def test_a_status_says_what_and_how_many_are_left() -> None:
    assert Log().status() == "evaluating"
    assert log(*BUILDS, BUILD).status() == "building nginx-1.26, 7 of 10 builds left"
    fetch = {
        "action": "start",
        "id": 3,
        "type": 108,
        "fields": ["/nix/store/00000000000000000000000000000000-curl-8"],
    }
    assert log(BUILD, fetch).status() == "fetching curl-8"
    assert log(BUILD, fetch, {"action": "stop", "id": 3}).status() == "building nginx-1.26"


def test_an_error_has_its_own_words_and_places() -> None:
    event = {
        "action": "msg",
        "level": 0,
        "msg": "\x1b[31;1merror:\x1b[0m no",
        "raw_msg": "\x1b[1mno way\x1b[0m",
        "file": "/x.nix",
        "line": 3,
        "column": 5,
        "trace": [{"raw_msg": "while \x1b[1mthinking\x1b[0m", "file": "/y.nix", "line": 1, "column": 2}],
    }
    [complaint] = log(event).complaints
    assert complaint.message == "no way"
    assert [(frame.text, frame.file, frame.line) for frame in complaint.frames] == [
        ("", "/x.nix", 3),
        ("while thinking", "/y.nix", 1),
    ]


def test_a_place_that_is_said_twice_is_taken_once() -> None:
    event = {"action": "msg", "level": 0, "msg": "no", "file": "/x.nix:3:5", "line": 3, "column": 5}
    [complaint] = log(event).complaints
    assert complaint.frames[0].file == "/x.nix"


def test_warnings_are_no_errors_and_lines_of_builds_are_kept() -> None:
    found = log(
        {"action": "msg", "level": 1, "msg": "warning: x"},
        {"action": "msg", "level": 0, "msg": "\x1b[35;1mwarning:\x1b[0m the group is missing"},
        BUILD,
        {"action": "result", "id": 2, "type": 101, "fields": ["\x1b[1mcompiling\x1b[0m"]},
    )
    assert found.complaints == []
    [lines] = found.build_lines.values()
    assert list(lines) == ["compiling"]


def test_what_is_no_message_is_kept_as_it_is() -> None:
    found = Log()
    found.add("\x1b[31;1merror:\x1b[0m plain\n")
    assert list(found.plain) == ["error: plain"]
