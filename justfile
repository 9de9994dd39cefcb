# Each recipe is a script in .ci/, so that it also runs without just. `just` lists the recipes.
set windows-shell := ["bash", "-cu"]

_list:
    @just --list --unsorted

# The inner loop: format, lints of the library, unit tests, tests of the sources and documents
quick:
    @.ci/quick

# All that must pass, or the steps that are named: `just ci format clippy`
ci *steps:
    @.ci/run {{ steps }}

# The library's tests
test:
    @.ci/test

# The tests of the other crates: the tool, the adapters, the replicated store
members:
    @.ci/members

# Formats all crates
fmt:
    cargo fmt --all
    cargo fmt --manifest-path benches/peers/Cargo.toml
    cargo fmt --manifest-path fuzz/Cargo.toml

# Checks the format of all crates
format:
    @.ci/format

# Lints of the whole workspace
clippy:
    @.ci/clippy

# The documentation of the published crates
docs:
    @.ci/docs

# Licences, sources and duplicates of the dependencies
deny:
    @.ci/deny

# Compares the public API with its record, or records it: `just api record`
api mode="check":
    @.ci/api {{ mode }}

# The packages of the published crates, built as a user would
package:
    @.ci/package

# The oldest supported Rust
msrv:
    @.ci/msrv

# The oldest versions of the dependencies
minimal:
    @.ci/minimal

# Other systems: compiles only
targets:
    @.ci/targets

# Runs the examples
examples:
    @.ci/examples

# Runs the quickstart package
quickstart:
    @.ci/quickstart

# Builds the benches
benches:
    @.ci/benches

# The bench of other logs, in small
peers:
    @.ci/peers

# Instructions of the hot paths, or their record: `just instructions record`
instructions mode="check":
    @.ci/instructions {{ mode }}

# The loom models
loom:
    @.ci/loom

# The pipeline under shuttle
shuttle:
    @.ci/shuttle

# The ring under Miri
miri:
    @.ci/miri

# The unit tests as a 32-bit program
i686:
    @.ci/i686

# Each fuzz target for some seconds
fuzz seconds="15":
    @.ci/fuzz {{ seconds }}

# AddressSanitizer or ThreadSanitizer: `just sanitize thread`
sanitize which="address":
    @.ci/sanitize {{ which }}

# The scripts of the steps
scripts:
    @.ci/scripts
