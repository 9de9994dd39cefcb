//! The error type of the guard.

/// An error whose text is printed for the user.
pub type Failure = Box<dyn std::error::Error>;
