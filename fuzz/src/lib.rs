//! What the fuzz targets share. Nothing in here knows the library's inside: bytes are sealed, and
//! logs are read, from `docs/FORMAT.md` and `docs/DURABILITY.md` alone.

pub mod aim;
pub mod directory;
pub mod largest;
pub mod mutation;
pub mod opening;
pub mod reference;
pub mod repeatable;
pub mod script;
pub mod seal;
