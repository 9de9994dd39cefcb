//! The code that the fuzz targets share.
//!
//! It does not use the library's internals. It seals bytes and reads logs according to
//! `docs/FORMAT.md` and `docs/DURABILITY.md` alone.

pub mod aim;
pub mod directory;
pub mod largest;
pub mod mutation;
pub mod opening;
pub mod reference;
pub mod repeatable;
pub mod script;
pub mod seal;
pub mod sizes;
