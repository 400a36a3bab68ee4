"""The NixOS test driver's surface, typed from its facts: what the parity tests have to prove, method by method."""

from __future__ import annotations

# name -> arguments with defaults. A method with a `timeout` has a time-out to prove.
METHODS = {
    "start": "(allow_reboot=False)",
    "shutdown": "()",
    "wait_for_shutdown": "(*, timeout=900)",
    "is_up": "()",
    "release": "()",
    "execute": "(command, check_return=True, check_output=True, timeout=900)",
    "succeed": "(*commands, timeout=None)",
    "fail": "(*commands, timeout=None)",
    "wait_until_succeeds": "(command, timeout=900)",
    "wait_until_fails": "(command, timeout=900)",
    "systemctl": "(q, user=None)",
    "start_job": "(jobname, user=None)",
    "stop_job": "(jobname, user=None)",
    "wait_for_unit": "(unit, user=None, timeout=900)",
    "require_unit_state": "(unit, require_state='active')",
    "get_unit_info": "(unit, user=None)",
    "get_unit_property": "(unit, property, user=None)",
    "wait_for_file": "(filename, timeout=900)",
    "sleep": "(secs)",
    "wait_for_open_port": "(port, addr='localhost', timeout=900)",
    "wait_for_closed_port": "(port, addr='localhost', timeout=900)",
    "wait_for_open_unix_socket": "(addr, is_datagram=False, timeout=900)",
    "copy_from_host": "(source, target)",
    "copy_from_host_via_shell": "(source, target)",
    "copy_from_machine": "(source, target_dir='')",
    "copy_from_vm": "(source, target_dir='')",
    "log": "(msg)",
    "log_serial": "(msg)",
    "nested": "(msg, attrs={})",
    "run_callbacks": "()",
    "cleanup_statedir": "()",
    "ssh_backdoor_command": "()",
    "connect": "()",
    "crash": "()",
    "reboot": "()",
    "block": "()",
    "unblock": "()",
    "forward_port": "(host_port=8080, guest_port=80, *, addr='localhost')",
    "shell_interact": "(address=None)",
    "console_interact": "()",
    "send_console": "(chars)",
    "wait_for_console_text": "(regex, timeout=None)",
    "get_console_log": "()",
    "get_tty_text": "(tty)",
    "wait_until_tty_matches": "(tty, regexp, timeout=900)",
    "dump_tty_contents": "(tty)",
    "wait_for_x": "(timeout=900)",
    "get_window_names": "()",
    "wait_for_window": "(regexp, timeout=900)",
}

# Methods that cannot fail, or whose failure is that of another test's.
NO_FAILURE = {
    "is_up",
    "sleep",
    "log",
    "log_serial",
    "start",  # a failed boot is told by the first command
    "connect",
    "release",
    "copy_from_vm",  # another name of copy_from_machine
    "get_console_log",
    "unblock",
    "crash",
    "shutdown",  # nothing where the node is off
    "reboot",
}

ATTRIBUTES = ("name", "out_dir", "state_dir", "shared_dir", "tmp_dir", "callbacks", "keep_machine_state")

VM_ONLY = (
    "screenshot",
    "send_key",
    "send_chars",
    "get_screen_text",
    "get_screen_text_variants",
    "wait_for_text",
    "send_monitor_command",
    "wait_for_monitor_prompt",
    "wait_for_qmp_event",
    "switch_root",
)

GLOBALS = (
    "start_all",
    "join_all",
    "run_tests",
    "test_script",
    "create_machine",
    "subtest",
    "retry",
    "polling_condition",
    "serial_stdout_on",
    "serial_stdout_off",
    "t",
    "log",
    "driver",
    "os",
    "machines",
    "machines_qemu",
    "machines_nspawn",
    "vlans",
    "Machine",
    "BaseMachine",
    "debug",
)

FUNCTIONS = {
    "start_all": "()",
    "join_all": "()",
    "run_tests": "()",
    "test_script": "()",
    "subtest": "(name)",
    "retry": "(fn, timeout_seconds=900)",
    "polling_condition": "(fun=None, *, seconds_interval=2.0, description=None)",
    "serial_stdout_on": "()",
    "serial_stdout_off": "()",
}
