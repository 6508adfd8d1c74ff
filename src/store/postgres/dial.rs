//! Opens one connection to one host. Knows neither pools nor what the connection is for.
//!
//! **Poolers**: a connection begins with a setting of ours as an option, a mark that nobody else has. A session that shows
//! the mark is ours alone. A pooler in between refuses the option, as `PgBouncer` does, or leaves it out, and then the
//! session does not show it. Nothing else tells the two apart for certain: even a notification to oneself may come back
//! through a transaction pooler, if it happens to give out the same session twice.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_postgres::config::Config;
use tokio_postgres::tls::{MakeTlsConnect, NoTlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::postgres::error::Fault;
use crate::store::postgres::passfile;
use crate::store::postgres::url::{HostTarget, Target};

/// The oldest server whose behaviour we know.
const MIN_SERVER: u32 = 13;

type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// The I/O of a connection, which somebody must drive.
pub(super) enum Wire {
    /// Without TLS.
    Plain(Box<Connection<Socket, NoTlsStream>>),
    /// With it.
    Tls(Box<Connection<Socket, TlsStream>>),
}

impl Wire {
    /// Goes on with the I/O. Ready with what the server says unasked, with an error, or with nothing at the end.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Fault>>> {
        let polled = match self {
            Self::Plain(connection) => connection.poll_message(cx),
            Self::Tls(connection) => connection.poll_message(cx),
        };
        polled.map(|message| message.map(|message| message.map_err(Fault::from)))
    }

    /// Drives the I/O until the connection ends.
    pub(super) async fn run(mut self) -> Result<(), Fault> {
        while let Some(message) = std::future::poll_fn(|cx| self.poll_message(cx)).await {
            message?;
        }
        Ok(())
    }

    fn server_version(&self) -> Option<&str> {
        match self {
            Self::Plain(connection) => connection.parameter("server_version"),
            Self::Tls(connection) => connection.parameter("server_version"),
        }
    }
}

/// A new connection.
pub(super) struct Dialled {
    pub(super) client: Client,
    pub(super) wire: Wire,
    /// What the session shows as `cloakroom.direct` if it is ours alone; hexadecimal digits.
    pub(super) mark: String,
}

/// Connects to one host of a target, within `limit` or the time that the URL gives.
///
/// A password file that cannot be read is told to `warn`; the server may not want a password.
pub(super) async fn dial(
    target: &Target,
    host: &HostTarget,
    limit: Duration,
    warn: impl FnOnce(&str),
) -> Result<Dialled, Fault> {
    let mut config = host.config.clone();
    if config.get_password().is_none()
        && let Some(password) = password(target, host, warn)
    {
        config.password(password);
    }
    config.connect_timeout(limit);
    let mark = format!("{:016x}", RandomState::new().hash_one(&host.account.host));
    let refuses_options = host.refuses_options.load(Ordering::Relaxed);
    let connected = if refuses_options {
        connect(target, host, &config).await
    } else {
        let mut marked = config.clone();
        let options = config.get_options().map(|options| format!("{options} ")).unwrap_or_default();
        marked.options(format!("{options}-c cloakroom.direct={mark}"));
        match connect(target, host, &marked).await {
            Err(fault) if fault.is_of_options() => {
                let connected = connect(target, host, &config).await;
                host.refuses_options.store(connected.is_ok(), Ordering::Relaxed);
                connected
            }
            connected => connected,
        }
    };
    if connected.is_err() {
        // Whoever answers there next may be another.
        host.refuses_options.store(false, Ordering::Relaxed);
    }
    let (client, wire) = connected?;
    check_version(wire.server_version())?;
    Ok(Dialled { client, wire, mark })
}

async fn connect(target: &Target, host: &HostTarget, config: &Config) -> Result<(Client, Wire), Fault> {
    match &target.tls {
        Some(tls) if !host.is_unix => {
            let (client, connection) = config.connect::<MakeRustlsConnect>(tls.clone()).await?;
            Ok((client, Wire::Tls(Box::new(connection))))
        }
        _ => {
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, Wire::Plain(Box::new(connection))))
        }
    }
}

/// How long connecting to a host may take: what the URL says, else `limit`.
pub(super) fn patience(host: &HostTarget, limit: Duration) -> Duration {
    host.config.get_connect_timeout().copied().unwrap_or(limit)
}

/// The hosts of a target in the order in which they are to be tried.
pub(super) fn order(target: &Target) -> Vec<&HostTarget> {
    let mut hosts: Vec<&HostTarget> = target.hosts.iter().collect();
    if target.shuffled {
        // Not of cryptographic quality.
        let random = RandomState::new();
        hosts.sort_by_cached_key(|host| random.hash_one((&host.account.host, host.account.port)));
    }
    hosts
}

/// Refuses servers that are too old to know.
fn check_version(version: Option<&str>) -> Result<(), Fault> {
    let major = version.and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    match major {
        Some(major) if major < MIN_SERVER => {
            Err(Fault::permanent(&format!("the server is Postgres {major}; at least {MIN_SERVER} is needed")))
        }
        _ => Ok(()),
    }
}

/// The password from the password file, read anew each time as it may change.
fn password(target: &Target, host: &HostTarget, warn: impl FnOnce(&str)) -> Option<String> {
    let path: &PathBuf = target.passfile.as_ref()?;
    match passfile::read(path) {
        Ok(text) => passfile::lookup(&text, &host.account),
        Err(error) => {
            warn(&error);
            None
        }
    }
}
