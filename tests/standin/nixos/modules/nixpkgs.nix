{
  config,
  lib,
  options,
  ...
}:

let
  cfg = config.nixpkgs;
in
{
  options.nixpkgs = {
    pkgs = lib.mkOption {
      type = lib.types.raw;
      description = "The package set.";
    };
    config = lib.mkOption {
      type = lib.types.attrs;
      default = { };
      description = "Configuration of a package set of the system's own.";
    };
    overlays = lib.mkOption {
      type = lib.types.listOf lib.types.raw;
      default = [ ];
      description = "Overlays over the package set.";
    };
    system = lib.mkOption {
      type = lib.types.str;
      description = "What the system runs on.";
    };
  };

  config._module.args.pkgs =
    if !options.nixpkgs.pkgs.isDefined then
      throw "the stand-in needs nixpkgs.pkgs"
    else if cfg.overlays == [ ] then
      cfg.pkgs
    else
      cfg.pkgs.appendOverlays cfg.overlays;
}
