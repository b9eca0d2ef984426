//! Client: the only file that knows the client library. How a server is reached, and how commands and answers look.
//!
//! A connection takes a bounded number of commands and is given up as a whole: nothing here retries.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    TlsCertificates, Value,
};

use crate::secret::Secret;
use crate::store::{Answer, Failure, Settings, StoreError};

/// Commands that are sent together and answered in order. In a cluster they may go to different servers.
#[derive(Clone, Debug, Default)]
pub struct Commands(redis::Pipeline);

impl Commands {
    /// One command.
    #[must_use]
    pub fn one(name: &str, arguments: &[&[u8]]) -> Self {
        let mut commands = Self::default();
        commands.add(name, arguments);
        commands
    }

    /// One more command.
    pub fn add(&mut self, name: &str, arguments: &[&[u8]]) {
        self.0.cmd(name);
        for argument in arguments {
            self.0.arg(*argument);
        }
    }
}

fn answer(value: Value) -> Answer {
    match value {
        Value::Nil => Answer::Nothing,
        Value::Okay => Answer::Status("OK".into()),
        Value::SimpleString(word) => Answer::Status(word.into()),
        Value::Int(number) => Answer::Number(number),
        Value::BulkString(bytes) => Answer::Bytes(bytes),
        Value::Array(values) => Answer::List(values.into_iter().map(answer).collect()),
        Value::ServerError(refusal) => Answer::Refused(refusal.code().into()),
        _ => Answer::Unexpected,
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::new(error.to_string())
    }
}

/// Where the server is, and how to log in. Prints as its address, without a password.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    address: Box<str>,
}

impl Server {
    /// The server that `settings` name. Connects to nothing.
    ///
    /// # Errors
    /// If a file cannot be read, or the URL makes no sense.
    pub fn new(settings: &Settings) -> Result<Self, StoreError> {
        let mut server = Self { settings: settings.clone(), address: Box::default() };
        let information = server.information()?;
        server.address = information.addr().to_string().into();
        server.certificates()?;
        Ok(server)
    }

    /// A new connection, logged in. What files hold is read again.
    ///
    /// # Errors
    /// If there is none to be had.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let information = self.information().map_err(|error| Failure::new(error.to_string()))?;
        let certificates = self.certificates().map_err(|error| Failure::new(error.to_string()))?;
        if self.settings.cluster {
            return self.connect_to_cluster(information, certificates).await;
        }
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(information, certificates)?,
            None => Client::open(information)?,
        };
        // Whoever sends a command sets its deadline.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        Ok(Connection(Kind::One(client.get_multiplexed_async_connection_with_config(&config).await?)))
    }

    async fn connect_to_cluster(
        &self,
        information: ConnectionInfo,
        certificates: Option<TlsCertificates>,
    ) -> Result<Connection, Failure> {
        let mut builder = ClusterClientBuilder::new([information])
            .tcp_settings(tcp_settings())
            .connection_timeout(self.settings.connect_timeout.get())
            // The client goes on with a command nobody waits for any more; this is when it stops.
            .response_timeout(LONGEST_IN_CLUSTER)
            // One for a slot that has moved.
            .retries(1)
            .min_retry_wait(1)
            .max_retry_wait(2);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        Ok(Connection(Kind::Cluster(builder.build()?.get_async_connection().await?)))
    }

    fn information(&self) -> Result<ConnectionInfo, StoreError> {
        let Settings { url, url_file, username, password_file, .. } = &self.settings;
        let (knob, url) = match (url, url_file) {
            (_, Some(path)) => ("cache.redis.url_file", read_secret("cache.redis.url_file", path)?),
            (Some(url), None) => ("cache.redis.url", Secret::new(url.trim())),
            (None, None) => {
                return Err(unusable("cache.redis.url", "is missing: write one such as redis://127.0.0.1:6379"));
            }
        };
        let information = url.expose().into_connection_info().map_err(|_| {
            unusable(
                knob,
                "is no URL of a server: write one such as redis://127.0.0.1:6379 or rediss://redis.example:6379",
            )
        })?;
        let mut login = information.redis_settings().clone();
        if let Some(username) = username {
            login = login.set_username(username);
        }
        if let Some(path) = password_file {
            login = login.set_password(read_secret("cache.redis.password_file", path)?.expose());
        }
        Ok(information.set_redis_settings(login).set_tcp_settings(tcp_settings()))
    }

    /// What to trust where TLS is spoken and the system's authorities are not to be.
    fn certificates(&self) -> Result<Option<TlsCertificates>, StoreError> {
        let Some(path) = &self.settings.ca_file else { return Ok(None) };
        let knob = "cache.redis.ca_file";
        if !matches!(self.information()?.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(unusable(knob, "needs TLS: write a URL that begins with rediss://, or remove it"));
        }
        let root = fs::read(path).map_err(|source| StoreError::Unreadable { knob, path: path.clone(), source })?;
        Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root) }))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The cluster's client gives up a command after this. Longer than anybody here waits.
const LONGEST_IN_CLUSTER: Duration = Duration::from_secs(2);

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn unusable(knob: &'static str, reason: &str) -> StoreError {
    StoreError::Unusable { knob, reason: reason.to_owned() }
}

fn read_secret(knob: &'static str, path: &Path) -> Result<Secret, StoreError> {
    let text =
        fs::read_to_string(path).map_err(|source| StoreError::Unreadable { knob, path: path.to_owned(), source })?;
    match text.trim() {
        "" => Err(unusable(knob, "names an empty file")),
        secret => Ok(Secret::new(secret)),
    }
}

/// A connection that many may use at once. Closed when the last clone is dropped.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Sends `commands` and waits for as many answers. Dropping the future leaves the answers to nobody.
    ///
    /// # Errors
    /// If the connection breaks, or what comes is no answer.
    pub async fn send(&self, commands: &Commands) -> Result<Vec<Answer>, Failure> {
        match &self.0 {
            Kind::One(connection) => {
                let values = connection.clone().req_packed_commands(&commands.0, 0, commands.0.len()).await?;
                Ok(values.into_iter().map(answer).collect())
            }
            Kind::Cluster(connection) => {
                let each = commands.0.cmd_iter().map(|command| send_into_cluster(connection.clone(), command));
                try_join_all(each).await
            }
        }
    }
}

async fn send_into_cluster(mut connection: ClusterConnection, command: &Cmd) -> Result<Answer, Failure> {
    match connection.req_packed_command(command).await {
        Ok(value) => Ok(answer(value)),
        Err(error) => match (error.kind(), error.code()) {
            (ErrorKind::Server(_) | ErrorKind::Extension, Some(code)) => Ok(Answer::Refused(code.into())),
            _ => Err(error.into()),
        },
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::One(_) => "Connection",
            Kind::Cluster(_) => "Connection to a cluster",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        fs::write(&path, text).expect("a written file");
        (dir, path)
    }

    #[test]
    fn a_server_prints_without_its_password() {
        let (_dir, path) = file("redis://weir:hidden@redis.example:7000/3\n");
        let from_file = Settings { url_file: Some(path), ..Settings::default() };
        let plain =
            Settings { url: Some("redis://weir:hidden@redis.example:7000/3".to_owned()), ..Settings::default() };
        for settings in [from_file, plain] {
            let server = Server::new(&settings).expect("a server");
            assert_eq!(server.to_string(), "redis.example:7000");
            assert!(!format!("{server:?} {settings:?}").contains("hidden"));
        }
    }

    #[test]
    fn what_files_say_goes_before_the_url() {
        let (_dir, path) = file("second\n");
        let settings = Settings {
            url: Some("redis://one:first@localhost".to_owned()),
            username: Some("other".to_owned()),
            password_file: Some(path.clone()),
            ..Settings::default()
        };
        let server = Server::new(&settings).expect("a server");
        let login = |server: &Server| {
            let information = server.information().expect("it is readable");
            let login = information.redis_settings();
            [login.username().map(str::to_owned), login.password().map(str::to_owned)]
        };
        assert_eq!(login(&server), [Some("other".to_owned()), Some("second".to_owned())]);
        fs::write(path, "third").expect("a written file");
        assert_eq!(login(&server)[1].as_deref(), Some("third"), "read again");
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_knob_and_not_shown() {
        let (_dir, empty) = file(" \n");
        let url = |url: &str| Settings { url: Some(url.to_owned()), ..Settings::default() };
        for (settings, knob) in [
            (Settings::default(), "cache.redis.url"),
            (url("redis://user:hidden@"), "cache.redis.url"),
            (Settings { url_file: Some(empty.clone()), ..Settings::default() }, "cache.redis.url_file"),
            (Settings { password_file: Some(empty.clone()), ..url("redis://h") }, "cache.redis.password_file"),
            (Settings { ca_file: Some(empty), ..url("redis://h") }, "cache.redis.ca_file"),
        ] {
            let error = Server::new(&settings).expect_err("it cannot be used").to_string();
            assert!(error.starts_with(&format!("{knob}: ")) && !error.contains("hidden"), "{error}");
        }
    }
}
