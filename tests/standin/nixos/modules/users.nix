{ config, lib, ... }:

let
  inherit (lib) mkOption types;

  user =
    { name, config, ... }:
    {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
          description = "Name of the user.";
        };
        isNormalUser = mkOption {
          type = types.bool;
          default = false;
          description = "Whether a person is behind it.";
        };
        isSystemUser = mkOption {
          type = types.bool;
          default = false;
          description = "Whether a service is behind it.";
        };
        uid = mkOption {
          type = types.nullOr types.int;
          default = null;
          description = "Number; null picks one.";
        };
        group = mkOption {
          type = types.str;
          default = if config.isNormalUser then "users" else "nogroup";
          description = "Primary group.";
        };
        extraGroups = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Further groups.";
        };
        home = mkOption {
          type = types.str;
          default = if config.isNormalUser then "/home/${name}" else "/var/empty";
          description = "Home directory.";
        };
        createHome = mkOption {
          type = types.bool;
          default = config.isNormalUser;
          description = "Whether the home directory is made.";
        };
        description = mkOption {
          type = types.str;
          default = "";
          description = "Full name.";
        };
        shell = mkOption {
          type = types.nullOr types.path;
          default = if config.isNormalUser then "/bin/bash" else "/usr/sbin/nologin";
          description = "Login shell.";
        };
        password = mkOption {
          type = types.nullOr types.str;
          default = null;
          description = "Password in clear.";
        };
        hashedPassword = mkOption {
          type = types.nullOr types.str;
          default = null;
          description = "Password as crypt(5) has it.";
        };
        initialHashedPassword = mkOption {
          type = types.nullOr types.str;
          default = null;
          description = "The same, for users who have none yet.";
        };
      };
    };
  group =
    { name, ... }:
    {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
          description = "Name of the group.";
        };
        gid = mkOption {
          type = types.nullOr types.int;
          default = null;
          description = "Number; null picks one.";
        };
        members = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Names of its users.";
        };
      };
    };

  cfg = config.users;
  # Who has no number gets one by its place: 1000 for persons, 400 for services.
  numbered =
    field: first: list:
    lib.imap0 (index: each: each // { ${field} = if each.${field} == null then first + index else each.${field}; }) list;
  all = lib.attrValues cfg.users;
  users = numbered "uid" 1000 (lib.filter (each: each.isNormalUser) all) ++ numbered "uid" 400 (lib.filter (each: !each.isNormalUser) all);
  groups = numbered "gid" 900 (lib.attrValues cfg.groups);
  gidOf =
    name:
    let
      found = lib.filter (each: each.name == name) groups;
    in
    if found == [ ] then throw "users.groups has no group ${name}" else toString (lib.head found).gid;
  membersOf = each: lib.unique (each.members ++ map (one: one.name) (lib.filter (one: lib.elem each.name one.extraGroups) users));
in
{
  options.users = {
    users = mkOption {
      type = types.attrsOf (types.submodule user);
      default = { };
      description = "Users.";
    };
    groups = mkOption {
      type = types.attrsOf (types.submodule group);
      default = { };
      description = "Groups.";
    };
    mutableUsers = mkOption {
      type = types.bool;
      default = true;
      description = "Whether users may be changed by hand.";
    };
  };

  config = {
    users.users = {
      root = {
        uid = 0;
        group = "root";
        home = "/root";
        shell = "/bin/bash";
      };
      nobody = {
        uid = 65534;
        group = "nogroup";
      };
      messagebus.group = "messagebus";
      systemd-network.group = "systemd-network";
      systemd-resolve.group = "systemd-resolve";
    };
    users.groups = lib.mapAttrs (_: gid: { inherit gid; }) {
      root = 0;
      tty = 5;
      wheel = 1;
      kmem = 2;
      disk = 6;
      audio = 17;
      video = 26;
      utmp = 29;
      adm = 55;
      systemd-journal = 62;
      users = 100;
      nogroup = 65534;
    }
    // {
      messagebus = { };
      systemd-network = { };
      systemd-resolve = { };
    };

    system.activationScripts.users = ''
      cat >/etc/passwd <<'END'
      ${lib.concatMapStringsSep "\n" (each: "${each.name}:x:${toString each.uid}:${gidOf each.group}:${each.description}:${each.home}:${toString each.shell}") users}
      END
      cat >/etc/group <<'END'
      ${lib.concatMapStringsSep "\n" (each: "${each.name}:x:${toString each.gid}:${lib.concatStringsSep "," (membersOf each)}") groups}
      END
      (
        umask 077
        : >/etc/shadow
        ${lib.concatMapStringsSep "\n" (
          each:
          let
            hash =
              if each.password != null then
                "$(printf %s ${lib.escapeShellArg each.password} | mkpasswd -m sha512 2>/dev/null)"
              else if each.hashedPassword != null then
                each.hashedPassword
              else if each.initialHashedPassword != null then
                each.initialHashedPassword
              else
                "!";
          in
          "echo \"${each.name}:${hash}:1::::::\" >>/etc/shadow"
        ) users}
      )
      ${lib.concatMapStrings (each: ''
        mkdir -p ${each.home} && chown ${toString each.uid}:${gidOf each.group} ${each.home} && chmod 0700 ${each.home}
      '') (lib.filter (each: each.createHome) users)}
    '';
  };
}
