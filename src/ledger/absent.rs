//! Writer, in a build without the feature `ledger`: nothing is written down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::entry::Entry;
use crate::ledger::{Settings, Standing};
use crate::record::content::Content;
use crate::redact::Redactor;

/// Told how long a transaction took: in this build, never.
pub type Written = Box<dyn Fn(Duration) + Send>;

/// A ledger: in this build, there is none.
#[derive(Debug)]
pub enum Ledger {}

/// Who writes it: in this build, nobody.
#[derive(Debug)]
pub enum Writer {}

/// No ledger.
#[must_use]
pub fn open(_: &Settings, _: Option<PathBuf>, _: Arc<Redactor>, _: Written) -> Option<(Ledger, Writer)> {
    None
}

impl Ledger {
    /// Nothing to offer to.
    pub fn offer(&self, _: Arc<Entry>, _: Option<Box<Content>>) {
        match *self {}
    }

    /// Nothing stands.
    pub fn standing(&self) -> impl Fn() -> Standing + Send + Sync + use<> {
        match *self {}
        #[expect(unreachable_code, reason = "the type of what is never made")]
        Standing::default
    }

    /// Nothing to end.
    pub fn end(&self) {
        match *self {}
    }
}

impl Writer {
    /// Nothing to run.
    pub fn run(self) {
        match self {}
    }
}
