# Nodes, evaluated together: their systems, what is known of them, and what they see of each other.
{
  lib,
  nixpkgs,
  pkgs,
  system,
}:
# `nodes`: by name, each with `values` (modules, or one system), a number, addresses, networks, store and specialArgs.
# `peers`: what is known of nodes that are no NixOS systems. `packages`: what all are made of, unless their options say.
# `references`: store paths that all see.
{
  nodes,
  peers,
  packages ? null,
  references ? [ ],
}:

let
  isSystem = value: builtins.isAttrs value && value ? config && value ? options && value.config ? system;

  profile = name: node: {
    _file = toString ./node.nix;
    imports = [ ./node.nix ];
    config = {
      _module.args = {
        inherit name;
        nodes = configs;
      };
      virtualisation.nspawn = {
        nodeName = name;
        nodeNumber = node.number;
        inherit (node) addresses;
        peers = hostsOf name;
      }
      // lib.optionalAttrs (node.networks != null) { inherit (node) networks; }
      // lib.optionalAttrs (node.store != null) { inherit (node) store; };
    };
  };

  # One package set for all systems; a system that configures its own makes its own.
  packageSet =
    { config, lib, ... }:
    {
      _file = toString ./nodes.nix;
      nixpkgs.pkgs = lib.mkIf (config.nixpkgs.config == { }) (lib.mkDefault (if packages == null then pkgs else packages));
    };

  # Errors name the node that they come from: so what `part` gives of a value is evaluated here, not when somebody looks at it.
  inNode = name: value: part: builtins.addErrorContext "while evaluating the node '${name}'" (builtins.seq (part value) value);

  evaluateNode =
    name: node:
    let
      inherit (node) values;
      systems = lib.filter isSystem (lib.filter builtins.isAttrs values);
      base = lib.head systems;
      modules = lib.filter (value: !(builtins.isAttrs value && isSystem value)) values ++ [ (profile name node) ];
    in
    inNode name (
      if systems == [ ] then
        import (nixpkgs + "/nixos/lib/eval-config.nix") {
          inherit system;
          modules = modules ++ [ packageSet ];
          specialArgs = {
            nspawnPackages = pkgs;
          }
          // node.specialArgs;
        }
      else if lib.length systems > 1 then
        throw "the node '${name}' is given several systems; give one, and modules"
      else if !(base ? extendModules) then
        throw "the node '${name}' is given a system of a NixOS before 21.11, which cannot be extended; give its modules"
      else
        base.extendModules {
          inherit modules;
          inherit (node) specialArgs;
        }
    ) (evaluated: evaluated.config);

  systems = lib.mapAttrs evaluateNode nodes;

  # As a NixOS test names them: nodes.web.networking, and nodes.web.config.networking as before 22.05.
  configs =
    lib.mapAttrs (_: node: node.config // { inherit (node) config options; }) systems
    // lib.mapAttrs (
      _: peer:
      let
        networking = {
          inherit (peer) hostName domain;
        }
        // lib.optionalAttrs (peer.interfaces != [ ]) {
          primaryIPAddress = (lib.head peer.interfaces).address4;
          primaryIPv6Address = (lib.head peer.interfaces).address6;
        };
      in
      {
        inherit networking;
        config = {
          inherit networking;
        };
      }
    ) peers;

  # Who has which addresses: the nodes evaluated here, and those of other images.
  known =
    lib.mapAttrs (_: node: {
      inherit (node.config.networking) hostName;
      domain = node.config.networking.domain or null;
      interfaces = lib.filter (each: each.assignIP) node.config.virtualisation.nspawn.interfaces;
    }) systems
    // peers;

  # A node's lines for /etc/hosts: every node, by an address in a network that both are in where there is one.
  hostsOf =
    name:
    lib.concatStrings (
      lib.mapAttrsToList (
        _: other:
        let
          shared = lib.concatMap (own: lib.filter (each: each.network == own.network) other.interfaces) known.${name}.interfaces;
          nearest = lib.head (shared ++ other.interfaces);
          names = lib.optionalString (other.domain != null) "${other.hostName}.${other.domain} " + other.hostName;
        in
        lib.optionalString (other.interfaces != [ ]) ''
          ${nearest.address4} ${names}
          ${nearest.address6} ${names}
        ''
      ) known
    );

  # What can be said before anything is built.
  outlineOf = node: {
    inherit (node.config.networking) hostName;
    inherit (node.config.virtualisation.nspawn) vmOnly;
  };

  factsOf =
    node:
    let
      inherit (node) config;
      inherit (config) networking virtualisation;
      firewall = networking.firewall or { enable = false; };
      toplevel = config.system.build.toplevel;
    in
    {
      system = "${toplevel}";
      inherit (networking) hostName primaryIPAddress primaryIPv6Address;
      domain = networking.domain or null;
      inherit (virtualisation.nspawn) interfaces store vmOnly;
      inherit (virtualisation) memorySize;
      diskSize = if builtins.isInt virtualisation.diskSize then virtualisation.diskSize else null;
      credentials = lib.mapAttrs (_: each: { inherit (each) source text; }) virtualisation.credentials;
      sharedDirectories = lib.listToAttrs (
        map (each: lib.nameValuePair each.target each.source) (lib.attrValues virtualisation.sharedDirectories)
      );
      firewall = {
        inherit (firewall) enable;
        allowedTCPPorts = firewall.allowedTCPPorts or [ ];
        allowedUDPPorts = firewall.allowedUDPPorts or [ ];
      };
      closure = "${pkgs.closureInfo { rootPaths = [ toplevel ] ++ virtualisation.additionalPaths ++ virtualisation.pathsInNixDB ++ references; }}";
    };
in
{
  inherit configs;
  outlines = lib.mapAttrs (name: node: inNode name (outlineOf node) builtins.toJSON) systems;
  facts = lib.mapAttrs (name: node: inNode name (factsOf node) builtins.toJSON) systems;
}
