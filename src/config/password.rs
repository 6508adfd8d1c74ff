//! The password of `AUTH`: compared in constant time, never printed.

use std::fmt;

use subtle::ConstantTimeEq;

/// A password.
#[derive(Clone)]
pub struct Password {
    bytes: Box<[u8]>,
}

impl Password {
    /// A password of these bytes; `None` if there are none.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self { bytes: bytes.into() })
    }

    /// Whether `given` is the password. Takes the same time wherever they differ; only the length shows.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        self.bytes.ct_eq(given).into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
