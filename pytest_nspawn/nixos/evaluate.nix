# All nodes of a request, evaluated together: a derivation that holds one JSON of all systems and facts.
# A request is a JSON file, see nixbuild/request.py. Nothing of it is ever spliced into Nix text.
{ request }:

let
  data = builtins.fromJSON (builtins.readFile request);
  inherit (data) system;

  nixpkgs = if data.nixpkgs ? path then /. + data.nixpkgs.path else (builtins.getFlake data.nixpkgs.flake).outPath;
  pkgs = import nixpkgs {
    inherit system;
    config = { };
    overlays = [ ];
  };
  inherit (pkgs) lib;

  # What a flake reference leads to: an attribute as it is spelled, else of this system's packages.
  fromFlake =
    { ref, attribute }:
    let
      flake = builtins.getFlake ref;
      path = lib.splitString "." attribute;
      inSystem = lib.attrByPath (lib.take 1 path ++ [ system ] ++ lib.drop 1 path) null flake;
      missing = throw "the flake ${ref} has no attribute ${attribute}; it has ${lib.concatStringsSep ", " (builtins.attrNames flake.outputs)}";
    in
    lib.attrByPath path (if inSystem == null then missing else inSystem) flake;

  # A config as the user gave it, as a value: a path stays one, so that its file is named in errors.
  valueOf =
    config:
    if config ? path then
      /. + config.path
    else
      fromFlake config.flake;

  isSystem = value: builtins.isAttrs value && value ? config && value ? options && value.config ? system;

  profile = name: node: {
    _file = toString ./node.nix;
    imports = [ ./node.nix ];
    config = {
      _module.args.nodes = configs;
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
  packages =
    { config, lib, ... }:
    {
      _file = toString ./evaluate.nix;
      nixpkgs.pkgs = lib.mkIf (config.nixpkgs.config == { }) (lib.mkDefault pkgs);
    };

  # Errors name the node that they come from: so what `part` gives of a value is evaluated here, not when somebody looks at it.
  inNode = name: value: part: builtins.addErrorContext "while evaluating the node '${name}'" (builtins.seq (part value) value);

  evaluateNode =
    name: node:
    let
      values = map valueOf node.configs;
      systems = lib.filter isSystem (lib.filter builtins.isAttrs values);
      base = lib.head systems;
      modules = lib.filter (value: !(builtins.isAttrs value && isSystem value)) values ++ [ (profile name node) ];
    in
    inNode name (
      if systems == [ ] then
        import (nixpkgs + "/nixos/lib/eval-config.nix") {
          inherit system;
          modules = modules ++ [ packages ];
          inherit (node) specialArgs;
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

  systems = lib.mapAttrs evaluateNode data.nodes;

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
    ) data.peers;

  # Who has which addresses: the nodes evaluated here, and those of other images.
  known =
    lib.mapAttrs (_: node: {
      inherit (node.config.networking) hostName;
      domain = node.config.networking.domain or null;
      interfaces = lib.filter (each: each.assignIP) node.config.virtualisation.nspawn.interfaces;
    }) systems
    // data.peers;

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
      firewall = {
        inherit (firewall) enable;
        allowedTCPPorts = firewall.allowedTCPPorts or [ ];
        allowedUDPPorts = firewall.allowedUDPPorts or [ ];
      };
      closure = "${node.pkgs.closureInfo { rootPaths = [ toplevel ]; }}";
    };
in
{
  nodes = pkgs.writeText "nspawn-nodes.json" (builtins.toJSON (lib.mapAttrs (name: node: inNode name (factsOf node) builtins.toJSON) systems));
}
