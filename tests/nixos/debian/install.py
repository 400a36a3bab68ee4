"""Builder of the derivation `debian`: copies an installed Debian tree into the store and makes it run from there.

Called as `install.py TREE OUT` with patchelf on PATH. Programs get the tree's own loader and library
directories, scripts the tree's own interpreters, units the tree's own programs; absolute links stay within.
What no program can be talked out of (/usr/lib/systemd, /usr/lib/openssh, ...) is the module system.nix's business.
"""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Nothing else of Debian's root is needed; dpkg's lists say which file belongs to which package.
PARTS = (
    *("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/libexec", "usr/include", "usr/share"),
    *("etc", "var/lib/dpkg/info"),
)
MERGED = ("bin", "sbin", "lib", "lib64")
# Paths in unit and D-Bus files. The character before keeps /nix/store/.../usr/bin and longer paths whole.
PROGRAM = re.compile(rb"(?<![\w./])/(?:usr/)?(bin|sbin|lib/systemd|lib/openssh|libexec)/(?=\w)")
SHEBANG = re.compile(rb"#! ?(?:/usr)?/bin/(env +)?(\S+)")
BARE = re.compile(rb"^(Exec\w+=[-+!@:|]*)(?=[a-z])([\w-]+)(?=\s|$)", re.MULTILINE)
UNITS = ("usr/lib/systemd/system/", "usr/lib/systemd/user/", "usr/share/dbus-1/")


def copy(tree: Path, out: Path) -> None:
    """Copies what the builder may read; a lock file or a password list that it may not is not needed."""
    for part in PARTS:
        if (tree / part).is_dir() and not (tree / part).is_symlink():
            (out / part).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["cp", "-r", "--preserve=mode,timestamps,links", "--no-dereference", tree / part, out / part],
                check=False,
                stderr=subprocess.DEVNULL,
            )
    for name in MERGED:
        if (tree / name).is_symlink():
            (out / name).symlink_to(os.readlink(tree / name))


def files(out: Path) -> Iterator[Path]:
    for directory, _names, names in os.walk(out):
        for name in names:
            yield Path(directory, name)
        for name in _names:
            if Path(directory, name).is_symlink():
                yield Path(directory, name)


def keep_link_inside(path: Path, out: Path) -> None:
    target = os.readlink(path)
    if target.startswith("/") and not target.startswith(("/dev/", "/proc/", "/run/", f"{out}/")):
        path.unlink()
        path.symlink_to(f"{out}{target}")


def library_path(out: Path) -> str:
    """The directories that hold shared libraries, the architecture's first."""
    lib = out / "usr/lib"
    triplets = sorted(str(path.parent) for path in lib.glob("*-linux-*/libc.so.6"))
    inner = [f"{triplet}/systemd" for triplet in triplets]
    return ":".join([*triplets, *inner, str(out / "usr/libexec/sudo"), str(lib)])


def loader_of(program: Path) -> str | None:
    found = subprocess.run(
        ["patchelf", "--print-interpreter", program], check=False, capture_output=True, text=True
    )
    return found.stdout.strip() or None


def patch_program(path: Path, out: Path, libraries: str) -> None:
    """Makes an executable find its loader and, by RPATH, whatever its libraries and the C library load."""
    loader = loader_of(path)
    if loader is None or ".so" in path.name:
        return
    subprocess.run(
        ["patchelf", "--set-interpreter", f"{out}{loader}", "--force-rpath", "--set-rpath", libraries, path],
        check=True,
    )


def patch_unit(path: Path, content: bytes, out: Path) -> None:
    """Names programs of the tree in full: systemd's own search path is /usr/bin and the like."""

    def find(match: re.Match[bytes]) -> bytes:
        name = os.fsdecode(match[2])
        found = next((place for place in ("bin", "sbin") if (out / "usr" / place / name).exists()), None)
        return match[1] + os.fsencode(out / "usr" / found / name if found else name)

    content = PROGRAM.sub(os.fsencode(out) + rb"/usr/\1/", content)
    path.write_bytes(BARE.sub(find, content))


def patch_script(path: Path, content: bytes, out: Path) -> None:
    first, newline, rest = content.partition(b"\n")
    first = SHEBANG.sub(lambda match: b"#!" + os.fsencode(out) + b"/usr/bin/" + match[2], first, count=1)
    path.write_bytes(first + newline + rest)


def wrap_perl(out: Path) -> None:
    """Perl looks for its modules in directories that were fixed when it was built: name the tree's."""
    perl = out / "usr/bin/perl"
    real = out / "usr/bin/perl.real"
    query = 'print join ":", grep { m{^/usr/(lib|share)} } @INC'
    places = subprocess.run([perl, "-e", query], check=True, capture_output=True, text=True).stdout
    inside = ":".join(f"{out}{place}" for place in places.split(":"))
    names = [path for path in (out / "usr/bin").glob("perl5*") if path.stat().st_ino == perl.stat().st_ino]
    perl.rename(real)
    for name in [perl, *names]:
        name.unlink(missing_ok=True)
        name.write_text(
            f'#!{out}/usr/bin/bash\nexport PERL5LIB="${{PERL5LIB:+$PERL5LIB:}}{inside}"\nexec {real} "$@"\n'
        )
        name.chmod(0o555)


def main() -> None:
    tree, out = Path(sys.argv[1]), Path(sys.argv[2])
    copy(tree, out)
    for directory, _names, _files in os.walk(out):
        Path(directory).chmod(0o755)
    programs: dict[int, Path] = {}  # by inode: perl has two names
    for path in files(out):
        if path.is_symlink():
            keep_link_inside(path, out)
            continue
        mode = path.stat().st_mode
        # Neither is allowed in a store; NixOS makes its own setuid wrappers.
        path.chmod((stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IWUSR) & 0o777)
        unit = str(path.relative_to(out)).startswith(UNITS)
        if not unit and not mode & stat.S_IXUSR:
            continue
        with path.open("rb") as stream:
            head = stream.read(4)
            if unit:
                patch_unit(path, head + stream.read(), out)
            elif head == b"\x7fELF":
                programs[path.stat().st_ino] = path
            elif head[:2] == b"#!":
                patch_script(path, head + stream.read(), out)
    libraries = library_path(out)
    # For the compiler's wrapper.
    (out / "nix-support").mkdir()
    (out / "nix-support/library-path").write_text(libraries)
    (out / "nix-support/loader").write_text(f"{out}{loader_of(out / 'usr/bin/true')}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _done in pool.map(lambda path: patch_program(path, out, libraries), programs.values()):
            pass
    # NixOS takes /bin/sh to be bash.
    shell = out / "usr/bin/sh"
    shell.unlink(missing_ok=True)
    shell.symlink_to("bash")
    # PAM dropped it, older NixOS modules ask for it to count failures.
    for permit in out.glob("usr/lib/*/security/pam_permit.so"):
        permit.with_name("pam_tally.so").symlink_to(permit.name)
    wrap_perl(out)


if __name__ == "__main__":
    main()
