# Shared by the scripts in this directory, each of which sources it first. It is not a step.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=1
# A clone that builds once gains nothing from incremental compilation and from debug information, and pays for both. A
# panic names its line without them, and a backtrace its functions.
if [ "${CI:-}" = true ]; then export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0; fi
step=$(basename "$0")
# The toolchain argument of nightly.
nightly=+${CI_NIGHTLY:-nightly}

# Records that a part of the step cannot run here; `.ci/run` repeats the reasons at its end. The workflows set
# CI_STRICT=1, because their machines have all tools: there a skipped part is a failure.
skipped() {
  echo "$step: skipped: $*"
  if [ -n "${CI_SKIPPED:-}" ]; then echo "$step: $*" >>"$CI_SKIPPED"; fi
  if [ "${CI_STRICT:-}" = 1 ]; then exit 1; fi
}

# Ends the step, because nothing of it can run here.
skip() {
  skipped "$*"
  exit 0
}

# Installs rustfmt and clippy where a toolchain came without them.
need_components() {
  rustup component add rustfmt clippy >/dev/null 2>&1 || true
}

# Installs nightly if it is missing.
need_nightly() {
  if ! cargo "$nightly" --version >/dev/null 2>&1; then
    timeout 300 rustup toolchain install "${nightly#+}" --profile minimal >/dev/null 2>&1 ||
      skip "the toolchain ${nightly#+} cannot be installed here"
  fi
}

# Installs a package of Debian or Ubuntu, if this system has apt-get and the user may.
apt_install() { # PACKAGE
  local sudo=()
  command -v apt-get >/dev/null || return 0
  if [ "$(id -u)" != 0 ]; then sudo=(sudo -n); fi
  ("${sudo[@]}" apt-get update -q && "${sudo[@]}" apt-get install -qy "$1") >/dev/null 2>&1 || true
}

# Puts target/tools on the path, and builds a cargo subcommand of an exact version there if it is missing. Without
# optimization and debug information, because the build takes longer than all runs of the tool.
need_tool() { # CRATE VERSION COMMAND…
  local crate=$1 version=$2
  shift 2
  export PATH=$PWD/target/tools/bin:$PATH
  if ! "$@" --version 2>/dev/null | grep -qF "$version"; then
    echo "$step: building $crate $version"
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$PWD/target/tools/build \
      cargo install --quiet --locked --debug --root target/tools "$crate@$version" ||
      skip "$crate $version cannot be installed here"
    rm -rf target/tools/build
  fi
}

# Installs the standard library of TARGET, or returns a failure.
need_target() { # TARGET
  command -v rustup >/dev/null || return 1
  rustup target list --installed | grep -qx "$1" || timeout 120 rustup target add "$1" >/dev/null 2>&1
}

# Runs a command that runs tests, and fails if it ran none, because a filter matches nothing after a test is renamed.
some_tests() { # COMMAND…
  local log status=0
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=$?
  if [ $status = 0 ] && ! grep -qE '^test result: ok\. [1-9]' "$log"; then
    echo "$step: no test ran: $*"
    status=1
  fi
  rm "$log"
  return $status
}
