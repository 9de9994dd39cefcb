//! The methods of an error that contains the log's own error.

/// Implements the methods for an error with the variant `Log(crate::Error)`.
macro_rules! impl_log_error_methods {
    ($error:ty) => {
        impl $error {
            /// Returns the error of the log itself, or `None` for another error.
            #[must_use]
            pub fn log_error(&self) -> Option<&$crate::error::Error> {
                match self {
                    Self::Log(error) => Some(error),
                    _ => None,
                }
            }

            /// Returns true if the log stopped after a failure; see
            /// [`Error::is_poisoned`](crate::Error::is_poisoned).
            #[must_use]
            pub fn is_poisoned(&self) -> bool {
                self.log_error().is_some_and($crate::error::Error::is_poisoned)
            }

            /// Returns true if durable data is damaged; see
            /// [`Error::is_corrupt`](crate::Error::is_corrupt).
            #[must_use]
            pub fn is_corrupt(&self) -> bool {
                self.log_error().is_some_and($crate::error::Error::is_corrupt)
            }

            /// Returns true if the log is closed; see
            /// [`Error::is_closed`](crate::Error::is_closed).
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.log_error().is_some_and($crate::error::Error::is_closed)
            }
        }
    };
}

pub(crate) use impl_log_error_methods;
