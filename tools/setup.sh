#!/usr/bin/env bash
# Installs what the build needs, from Debian packages: tools/setup.sh [--with fuzz|bench|arm64|format]...
# The list below is the only one. Installs only what is missing; prints nothing when nothing is.
set -euo pipefail

packages=(
  g++ cmake ninja-build make pkg-config ccache
  nlohmann-json3-dev libfmt-dev libspdlog-dev libcli11-dev libexpected-dev libtomlplusplus-dev libssl-dev liblzma-dev
  libcpp-httplib-dev libcurl4-openssl-dev ca-certificates
  libjpeg62-turbo-dev libpng-dev libwebp-dev
  libpcre2-dev libutf8proc-dev
  libgtest-dev libgmock-dev
  xz-utils python3
)
foreign=()
while [ $# -gt 0 ]; do
  case "$1 ${2-}" in
    "--with fuzz") packages+=(clang libclang-rt-14-dev) ;;
    "--with bench") packages+=(libbenchmark-dev) ;;
    "--with format") packages+=(clang-format-14) ;;
    "--with arm64")
      packages+=(crossbuild-essential-arm64 qemu-user)
      foreign=(libfmt-dev libspdlog-dev libssl-dev liblzma-dev libcpp-httplib-dev libcurl4-openssl-dev
        libjpeg62-turbo-dev libpng-dev
        libwebp-dev libpcre2-dev libutf8proc-dev libgtest-dev libgmock-dev)
      packages+=("${foreign[@]/%/:arm64}")
      ;;
    *)
      echo "usage: tools/setup.sh [--with fuzz|bench|arm64|format]..." >&2
      exit 2
      ;;
  esac
  shift 2
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  for tool in cmake ninja c++ pkg-config; do
    command -v "$tool" >/dev/null && continue
    echo "setup: '$tool' is missing and there is no apt-get here." >&2
    echo "Install your system's packages for: ${packages[*]}" >&2
    exit 1
  done
  exit 0 # the tools are here; CMake names a library that is not
fi

# A package can be there for another architecture only.
native=$(dpkg --print-architecture)
is_installed() {
  local arch=$native
  [[ "$1" == *:* ]] && arch=${1##*:}
  dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "${1%%:*}" 2>/dev/null |
    grep -qxE "($arch|all) installed"
}
missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}"
if [ ${#foreign[@]} -gt 0 ]; then "${sudo[@]}" dpkg --add-architecture arm64; fi
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
