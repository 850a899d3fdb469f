#!/usr/bin/env bash
# Makes a machine a node: system packages for FFCV, a virtual environment, the package (not editable), the environment.
#   install.sh [EXTRA ...]     e.g. install.sh s3
# Idempotent, and quick where this source is installed already.  pip's own settings (mirror, offline) hold.
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$HOME/.bat-dist
venv=$home/venv
extras=$(IFS=,; echo "ray,tune,report,ffcv${*:+,$*}")

say() { echo "bat_dist: $*"; }
fail() { echo "bat_dist: $*" >&2; exit 1; }

system_packages=(g++ libopencv-dev libturbojpeg0-dev pkg-config rsync tmux)
if ! dpkg -s "${system_packages[@]}" >/dev/null 2>&1; then
  command -v apt-get >/dev/null || fail "no apt-get here: install ${system_packages[*]} by hand"
  say "installing system packages"
  root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
  wait_for_lock="-o DPkg::Lock::Timeout=600"  # a new machine updates itself at first
  # shellcheck disable=SC2086
  root apt-get $wait_for_lock update -qq
  # shellcheck disable=SC2086
  root env DEBIAN_FRONTEND=noninteractive apt-get $wait_for_lock install -y -qq --no-install-recommends "${system_packages[@]}" >/dev/null
fi

mkdir -p "$home"
if [ ! -x "$venv/bin/python" ]; then
  python=$(command -v python3.11 || command -v python3.12 || command -v python3.13 || true)
  [ -n "$python" ] || fail "Python 3.11, 3.12 or 3.13 is needed"
  rm -f "$home/installed"  # it told of an environment that is no more
  "$python" -m venv "$venv" || { rm -rf "$venv"; fail "$python -m venv does not work: install python3-venv and python3-dev"; }
fi

# What is installed is known by the hash of all that decides it.
hash=$(cd "$source" && { echo "$extras"; find bat_dist tune_configs pyproject.toml constraints.txt README.md LICENSE -type f \
  ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$home/installed" 2>/dev/null)" != "$hash" ]; then
  say "installing the package with [$extras]"
  rm -f "$home/installed"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$source/constraints.txt" "${source}[$extras]"
  # The version may be the one that was there: the code must be this one.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$source"
  echo "$hash" > "$home/installed"
fi

cp "$source/cluster/env.sh" "$home/env.sh"
line=". $home/env.sh  # bat_dist"
touch "$HOME/.bashrc"
grep -qxF "$line" "$HOME/.bashrc" || sed -i "1i $line" "$HOME/.bashrc" 2>/dev/null
grep -qxF "$line" "$HOME/.bashrc" || echo "$line" >> "$HOME/.bashrc"   # an empty file has no first line
mkdir -p "$HOME/.ray"
chmod 700 "$HOME/.ray"
[ ! -f "$HOME/.ray/auth_token" ] || chmod 600 "$HOME/.ray/auth_token"
# A line of its own, for a failure within the words of another command ends nothing.
version=$("$venv/bin/bat-dist" --version) || { rm -f "$home/installed"; fail "$venv/bin/bat-dist does not run: run this again"; }
say "ready: $version on $(hostname)"
