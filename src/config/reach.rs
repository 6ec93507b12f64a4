//! What a command reaches, and so which secrets have to be there for it.
//!
//! A secret stays a reference until it is used ([`super::Secret::reveal`]), and where it is missing, that fails and names it. So what is
//! not asked for here may be absent, and nothing else ever stands in its place.

use super::KeyPath;

/// What a command connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The sources and the tables.
    All,
    /// The tables alone: whoever reads them may have no password of a source.
    Tables,
}

impl Reach {
    /// Whether what this key names, a secret or a certificate, is used on the way.
    pub(super) fn needs(self, at: &KeyPath) -> bool {
        // One section is of the stores, whatever pipelines write to them; all other secrets are of the sources.
        let stores = KeyPath::of(["storage"]);
        self == Reach::All || at.ways_up().any(|way| way == stores)
    }
}
