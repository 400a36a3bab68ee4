# Writes store-paths and registration from the closure in .attrs.json, which Nix writes on one line, keys sorted.
out=$(sed 's/.*"outputs":{"out":"\([^"]*\)".*/\1/' "$NIX_ATTRS_JSON_FILE")
mkdir -p "$out"
sed 's/.*"closure":\[\(.*\)\],.*"outputs".*/\1/; s/},{/}\n{/g' "$NIX_ATTRS_JSON_FILE" | awk -v out="$out" '
  function field(key, pattern) { match($0, "\"" key "\":" pattern); return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) }
  {
    path = field("path", "\"[^\"]*\""); gsub("\"", "", path)
    hash = field("narHash", "\"[^\"]*\""); gsub("\"", "", hash)
    size = field("narSize", "[0-9]*")
    references = field("references", "\\[[^]]*\\]"); gsub("[][\"]", "", references)
    count = split(references, reference, ",")
    print path > (out "/store-paths")
    printf "%s\n%s\n%s\n\n%d\n", path, hash, size, count > (out "/registration")
    for (i = 1; i <= count; i++) print reference[i] > (out "/registration")
  }
'
