# What the parts of the host module know about one container.
{ lib }:
{
  # Whether it can be the name of a machine, and of its host.
  isName = name: builtins.match "[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?" name != null;

  # The system that it boots.
  toplevelOf =
    container: if container.path != null then container.path else container.config.system.build.toplevel;

  # Its interface on the host. systemd-nspawn shortens a name that is too long, and makes this the other name.
  interfaceOf =
    name: container:
    let
      inherit (container.network.veth) zone;
    in
    if zone != null then "vz-${zone}" else "ve-${name}";
}
