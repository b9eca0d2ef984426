//! Client, in a build without the feature `redis`: there are no servers, and whoever wants one is told why.

use std::fmt;

use crate::store::{Answer, Failure, Settings, StoreError};

/// Commands that are sent together: in this build, to nobody.
#[derive(Clone, Debug, Default)]
pub struct Commands {}

impl Commands {
    /// One command.
    #[must_use]
    pub const fn one(_: &str, _: &[&[u8]]) -> Self {
        Self {}
    }

    /// One more command.
    pub const fn add(&mut self, _: &str, _: &[&[u8]]) {}
}

/// A server: in this build, there is none.
#[derive(Debug)]
pub enum Server {}

impl Server {
    /// No server.
    ///
    /// # Errors
    /// Always, in this build.
    pub fn new(_: &Settings) -> Result<Self, StoreError> {
        let reason = "this weir was built without the feature `redis`: remove it, or build with `--features redis`";
        Err(StoreError::Unusable { knob: "cache.redis", reason: reason.to_owned() })
    }

    /// Never called: there is no server.
    ///
    /// # Errors
    /// Never.
    #[expect(clippy::unused_async, reason = "as in a build with the feature")]
    pub async fn connect(&self) -> Result<Connection, Failure> {
        match *self {}
    }
}

impl fmt::Display for Server {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// A connection: in this build, there is none.
#[derive(Clone, Debug)]
pub enum Connection {}

impl Connection {
    /// Never called: there is no connection.
    ///
    /// # Errors
    /// Never.
    #[expect(clippy::unused_async, reason = "as in a build with the feature")]
    pub async fn send(&self, _: &Commands) -> Result<Vec<Answer>, Failure> {
        match *self {}
    }
}
