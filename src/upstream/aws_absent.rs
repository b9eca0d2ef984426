//! AWS, in a build without the feature `aws`: there are no signers, and whoever wants one is told why.

use http::Request;

use crate::upstream::sign::{Scope, Unsigned};
use crate::upstream::trust::Trust;
use crate::upstream::{RequestBody, Settings};

/// There is no identity to sign with. Never happens in this build.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {}

/// An identity at AWS: in this build, there is none.
#[derive(Debug)]
pub(super) enum Identity {}

/// weir was built without what it takes to sign.
#[derive(Debug, thiserror::Error)]
#[error("this weir was built without the feature `aws`: remove `aws_sign`, or build it with `--features aws`")]
pub struct Absent;

/// Signs requests to AWS: in this build, nothing does.
#[derive(Clone, Debug)]
pub enum Signer {}

impl Signer {
    /// No signer.
    ///
    /// # Errors
    /// Always, in this build.
    pub fn new(_: Option<&str>, _: Option<&str>, _: &Settings, _: &Trust) -> Result<Self, Absent> {
        Err(Absent)
    }

    /// Never called: there is no signer.
    #[expect(clippy::unused_async, reason = "as in a build with the feature")]
    pub async fn keep(self) {
        match self {}
    }

    pub(super) fn region(&self) -> Option<&str> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "as in a build with the feature")]
    pub(super) async fn identity(&self) -> Result<Identity, NoIdentity> {
        match *self {}
    }

    pub(super) fn sign(_: &mut Request<RequestBody>, identity: &Identity, _: &Scope) -> Result<(), Unsigned> {
        match *identity {}
    }
}
