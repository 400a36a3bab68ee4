"""What runs in the sandbox: warden, init, wires, agent. Started as one program by `sandbox.py`, never imported by it.

    warden   outside the PID namespace; owns the cgroups; ends all when the test process or init ends
    init     PID 1 of the sandbox; mounts, starts systemd-nspawn, reaps
    wires    speaks netlink, one process a cluster, each in a network namespace of its own
    agent    one a boot of a node, inside the node's namespaces: commands, files, sockets

Only the standard library, `wire.py` and (in wires) `network.py` are imported here, and everything is imported before
the first namespace is entered: a module loaded afterwards could come from a node's file system.
"""
