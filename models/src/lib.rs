//! Models of the protocols of Highwater, checked exhaustively within bounds.
//!
//! Each module is one model and its tests. A test checks that the model holds, or that a broken
//! variant of it has a counterexample. `docs/MODELS.md` describes the models, their assumptions
//! and their results.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod check;
#[cfg(test)]
mod copy;
#[cfg(test)]
mod line;
#[cfg(test)]
mod promotion;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod shipping;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod truncation;
