# Sections of options as systemd's files have them: a list is one line an item, null none.
{ lib }:
let
  valueText = value: if builtins.isBool value then lib.boolToString value else toString value;
  line =
    key: value:
    if value == null then
      ""
    else if builtins.isList value then
      lib.concatMapStrings (each: "${key}=${valueText each}\n") value
    else
      "${key}=${valueText value}\n";
in
sections:
lib.concatStrings (
  lib.mapAttrsToList (
    name: options: lib.optionalString (options != { }) "[${name}]\n${lib.concatStrings (lib.mapAttrsToList line options)}\n"
  ) sections
)
