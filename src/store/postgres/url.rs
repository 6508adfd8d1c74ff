//! Reads `postgres://` URLs as libpq does, into one connection configuration per host. Connects to nothing, and never
//! repeats a part of the URL in a message, as any part may turn out to be a password with a character too many.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{ChannelBinding, Config, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::postgres::passfile::{self, Account, Env};
use crate::store::postgres::tls::{self, TlsFiles, Verify};

/// A URL that was understood: where to connect, and how.
pub(super) struct Target {
    /// In the order of the URL; at least one.
    pub(super) hosts: Vec<HostTarget>,
    /// Whether to try the hosts in random order.
    pub(super) shuffled: bool,
    /// For hosts that are not unix sockets; `None` if TLS is off.
    pub(super) tls: Option<MakeRustlsConnect>,
    /// Where a password is looked up at each attempt to connect, if the URL and the environment have none.
    pub(super) passfile: Option<PathBuf>,
    /// Whether the server must take writes.
    pub(super) must_write: bool,
}

/// One host of a URL.
pub(super) struct HostTarget {
    /// All but a password from a file.
    pub(super) config: Config,
    /// Whose password to look up.
    pub(super) account: Account,
    /// Whether TLS does not apply.
    pub(super) is_unix: bool,
    /// A pooler was found there that takes no options of a connection.
    pub(super) refuses_options: AtomicBool,
}

/// Whether `url` can be used, without connecting; else everything that is wrong with it. Reads the files it names.
pub fn check(url: &str) -> Result<(), Vec<String>> {
    parse(url, &|name| std::env::var(name).ok()).map(drop)
}

/// The URL without password and parameters, for people to read.
#[must_use]
pub fn redacted(url: &str) -> String {
    let parsed = split(url).and_then(|parts| Ok((parts.endpoints()?, parts)));
    let Ok((endpoints, parts)) = parsed else {
        return "postgres://…".to_owned();
    };
    let user = parts.user.map(|user| format!("{user}@")).unwrap_or_default();
    let hosts: Vec<String> = endpoints
        .iter()
        .map(|(host, port)| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
        .collect();
    format!("postgres://{user}{}/{}", hosts.join(","), parts.database.unwrap_or_default())
}

/// Understands `url`; else everything that is wrong with it.
pub(super) fn parse(url: &str, env: Env<'_>) -> Result<Target, Vec<String>> {
    let mut parts = split(url).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let endpoints = parts.endpoints().unwrap_or_else(|fault| {
        faults.push(fault);
        Vec::new()
    });
    let mut settings = Settings::new(env);
    for (name, value) in std::mem::take(&mut parts.parameters) {
        if let Err(fault) = settings.set(&name, value) {
            faults.push(fault);
        }
    }
    let addresses = settings.hostaddr.take().unwrap_or_default();
    if !addresses.is_empty() && addresses.len() != endpoints.len() {
        faults.push("store URL: there must be as many `hostaddr` as hosts".to_owned());
    }
    let any_tcp = endpoints.iter().any(|(host, _)| !host.starts_with('/'));
    let tls = match settings.tls(any_tcp) {
        Ok(tls) => tls,
        Err(fault) => {
            faults.push(format!("store URL: {fault}"));
            None
        }
    };
    let passfile = settings.passfile.take().or_else(|| passfile::default_path(env));
    let passfile = if parts.password.is_none() { passfile } else { None };
    if settings.passfile_named
        && let Some(path) = &passfile
        && let Err(fault) = passfile::read(path)
    {
        faults.push(format!("store URL: {fault}"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let hosts = endpoints
        .into_iter()
        .enumerate()
        .map(|(index, (host, port))| parts.host(&settings, host, port, addresses.get(index).copied(), env))
        .collect();
    let must_write = settings.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
    Ok(Target { hosts, shuffled: settings.shuffled, tls, passfile, must_write })
}

/// The parts of a URL, percent-decoded.
struct Parts {
    user: Option<String>,
    password: Option<String>,
    /// As written: a comma-separated list, decoded item by item.
    hosts: String,
    ports: Option<String>,
    database: Option<String>,
    /// Those that are not one of the above.
    parameters: Vec<(String, String)>,
}

/// Takes a URL apart.
fn split(url: &str) -> Result<Parts, String> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("store URL: it must begin with postgres:// or postgresql://")?;
    let (before, query) = rest.split_once('?').map_or((rest, ""), |(before, query)| (before, query));
    let (authority, database) = before.split_once('/').map_or((before, ""), |(authority, path)| (authority, path));
    let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
    if database.contains('@') || query.contains('@') || database.contains('/') {
        return Err("store URL: the characters `@`, `/` and `?` must be percent-encoded in names and passwords".into());
    }
    let (user, password) = login.split_once(':').map_or((login, ""), |(user, password)| (user, password));
    let some = |text: &str| if text.is_empty() { Ok(None) } else { decoded(text).map(Some) };
    let mut parts = Parts {
        user: some(user)?,
        password: some(password)?,
        hosts: hosts.to_owned(),
        ports: None,
        database: some(database)?,
        parameters: Vec::new(),
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("store URL: a parameter has no `=`")?;
        let (name, value) = (decoded(name)?, decoded(value)?);
        match name.as_str() {
            "user" => parts.user = Some(value),
            "password" => parts.password = Some(value),
            "host" => parts.hosts = value.split(',').map(encoded).collect::<Vec<_>>().join(","),
            "port" => parts.ports = Some(value),
            "dbname" => parts.database = Some(value),
            _ => parts.parameters.push((name, value)),
        }
    }
    Ok(parts)
}

impl Parts {
    /// The hosts with their ports, as `host=` and `port=` or the authority have them.
    fn endpoints(&self) -> Result<Vec<(String, u16)>, String> {
        let mut endpoints = Vec::new();
        for item in self.hosts.split(',') {
            let (host, port) = match item.strip_prefix('[') {
                Some(rest) => {
                    let (host, after) = rest.split_once(']').ok_or("store URL: a `[` has no `]`")?;
                    (host, after.strip_prefix(':').unwrap_or(after))
                }
                None => item.split_once(':').unwrap_or((item, "")),
            };
            let host = decoded(host)?;
            endpoints.push((if host.is_empty() { default_host() } else { host }, port_of(port)?));
        }
        if let Some(ports) = &self.ports {
            let ports = ports.split(',').map(port_of).collect::<Result<Vec<_>, _>>()?;
            if ports.len() != 1 && ports.len() != endpoints.len() {
                return Err("store URL: there must be one port, or as many as hosts".to_owned());
            }
            for (index, endpoint) in endpoints.iter_mut().enumerate() {
                endpoint.1 = ports[index % ports.len()];
            }
        }
        Ok(endpoints)
    }

    /// The configuration for one of the hosts.
    fn host(
        &self,
        settings: &Settings,
        host: String,
        port: u16,
        address: Option<std::net::IpAddr>,
        env: Env<'_>,
    ) -> HostTarget {
        let is_unix = host.starts_with('/');
        let mut config = settings.config.clone();
        config.host(&host).port(port);
        if is_unix {
            config.ssl_mode(SslMode::Disable).ssl_negotiation(SslNegotiation::Postgres);
        } else if let Some(address) = address {
            config.hostaddr(address);
        }
        let user = self.user.clone().or_else(|| env("PGUSER"));
        if let Some(user) = &user {
            config.user(user);
        }
        let database = self.database.clone().or_else(|| env("PGDATABASE"));
        if let Some(database) = &database {
            config.dbname(database);
        }
        if let Some(password) = self.password.clone().or_else(|| env("PGPASSWORD")) {
            config.password(password);
        }
        let user = user.or_else(|| env("USER")).unwrap_or_default();
        let database = database.unwrap_or_else(|| user.clone());
        let account = Account { host, port, database, user };
        HostTarget { config, account, is_unix, refuses_options: AtomicBool::new(false) }
    }
}

/// What the parameters of a URL say.
struct Settings {
    config: Config,
    sslmode: String,
    direct: bool,
    files: TlsFiles,
    hostaddr: Option<Vec<std::net::IpAddr>>,
    shuffled: bool,
    passfile: Option<PathBuf>,
    passfile_named: bool,
}

impl Settings {
    /// Nothing said yet.
    fn new(env: Env<'_>) -> Self {
        let mut config = Config::new();
        config
            .application_name("cloakroom")
            // A dead peer is noticed: by what is sent to it within 10 s, on idle connections within a minute.
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        Self {
            config,
            sslmode: "prefer".to_owned(),
            direct: false,
            files: TlsFiles::in_home(env),
            hostaddr: None,
            shuffled: false,
            passfile: env("PGPASSFILE").map(PathBuf::from),
            passfile_named: false,
        }
    }

    /// Takes in one parameter; the error never holds its value.
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("store URL: `{name}` must be {what}"));
        let whole = || value.parse::<u64>().map_err(|_| format!("store URL: `{name}` must be a whole number"));
        let config = &mut self.config;
        match name {
            "application_name" | "fallback_application_name" => drop(config.application_name(value)),
            "options" => drop(config.options(value)),
            "connect_timeout" => match whole()? {
                0 => {}
                seconds => drop(config.connect_timeout(Duration::from_secs(seconds))),
            },
            "tcp_user_timeout" => drop(config.tcp_user_timeout(Duration::from_millis(whole()?))),
            "keepalives" => drop(config.keepalives(whole()? != 0)),
            "keepalives_idle" => drop(config.keepalives_idle(Duration::from_secs(whole()?))),
            "keepalives_interval" => drop(config.keepalives_interval(Duration::from_secs(whole()?))),
            "keepalives_count" => drop(config.keepalives_retries(u32::try_from(whole()?).unwrap_or(u32::MAX))),
            "target_session_attrs" => match value.as_str() {
                "any" => drop(config.target_session_attrs(TargetSessionAttrs::Any)),
                "read-write" | "primary" => drop(config.target_session_attrs(TargetSessionAttrs::ReadWrite)),
                _ => return wrong("any, read-write or primary"),
            },
            "channel_binding" => match value.as_str() {
                "disable" => drop(config.channel_binding(ChannelBinding::Disable)),
                "prefer" => drop(config.channel_binding(ChannelBinding::Prefer)),
                "require" => drop(config.channel_binding(ChannelBinding::Require)),
                _ => return wrong("disable, prefer or require"),
            },
            "load_balance_hosts" => match value.as_str() {
                "disable" => self.shuffled = false,
                "random" => self.shuffled = true,
                _ => return wrong("disable or random"),
            },
            "hostaddr" => match value.split(',').map(str::parse).collect() {
                Ok(addresses) => self.hostaddr = Some(addresses),
                Err(_) => return wrong("a list of IP addresses"),
            },
            "passfile" => {
                self.passfile = Some(PathBuf::from(value));
                self.passfile_named = true;
            }
            _ => return self.set_tls(name, value),
        }
        Ok(())
    }

    /// Takes in one parameter of TLS.
    fn set_tls(&mut self, name: &str, value: String) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("store URL: `{name}` must be {what}"));
        match name {
            "sslmode" => match value.as_str() {
                "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full" => self.sslmode = value,
                _ => return wrong("disable, allow, prefer, require, verify-ca or verify-full"),
            },
            "sslnegotiation" => match value.as_str() {
                "postgres" => self.direct = false,
                "direct" => self.direct = true,
                _ => return wrong("postgres or direct"),
            },
            "sslrootcert" => self.files.set_root(&value),
            "sslcert" => self.files.certificate = Some(PathBuf::from(value)),
            "sslkey" => self.files.key = Some(PathBuf::from(value)),
            // They change nothing here, and are common in URLs.
            "gssencmode" if value != "require" => {}
            "sslcompression" if value == "0" => {}
            "sslsni" if value == "1" => {}
            _ if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
                return Err(format!("store URL: the parameter `{name}`, or this value of it, is not supported"));
            }
            _ => return Err("store URL: it has a parameter that is not known".to_owned()),
        }
        Ok(())
    }

    /// Decides on TLS, and tells `config`.
    fn tls(&mut self, any_tcp: bool) -> Result<Option<MakeRustlsConnect>, String> {
        if self.files.is_system_root() && self.sslmode != "verify-full" {
            // As libpq: with the system's roots anybody can get a certificate for some name, so names must be checked.
            if self.sslmode != "prefer" {
                return Err("`sslrootcert=system` goes with `sslmode=verify-full` only".to_owned());
            }
            "verify-full".clone_into(&mut self.sslmode);
        }
        let (mode, verify) = match self.sslmode.as_str() {
            "disable" => (SslMode::Disable, None),
            "verify-full" => (SslMode::Require, Some(Verify::ChainAndName)),
            "verify-ca" => (SslMode::Require, Some(Verify::Chain)),
            // As libpq: with a root certificate at hand, `require` checks the chain.
            "require" if self.files.has_root() => (SslMode::Require, Some(Verify::Chain)),
            "require" => (SslMode::Require, Some(Verify::Nothing)),
            _ => (SslMode::Prefer, Some(Verify::Nothing)),
        };
        self.config.ssl_mode(mode);
        if self.direct {
            if mode != SslMode::Require {
                return Err("`sslnegotiation=direct` needs `sslmode` require, verify-ca or verify-full".to_owned());
            }
            self.config.ssl_negotiation(SslNegotiation::Direct);
        }
        match verify {
            Some(verify) if any_tcp => tls::connector(verify, &self.files, self.direct).map(Some),
            _ => Ok(None),
        }
    }
}

/// A port; the default if there is none.
fn port_of(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(5432);
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("store URL: a port must be a number from 1 to 65535".to_owned()),
    }
}

/// Where servers keep their unix socket: Debian's directory, or that of Postgres itself.
fn default_host() -> String {
    let debian = "/var/run/postgresql";
    if Path::new(debian).is_dir() { debian.to_owned() } else { "/tmp".to_owned() }
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_| "store URL: a percent-encoded part is not UTF-8".to_owned())
}

/// Escapes what [`Parts::endpoints`] would take for a separator (a `host=` parameter has no ports in it).
fn encoded(host: &str) -> String {
    host.replace('%', "%25").replace(':', "%3A").replace('[', "%5B")
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn parsed(url: &str) -> Target {
        parse(url, &nothing).unwrap_or_else(|faults| panic!("{url}: {faults:?}"))
    }

    /// `user@host:port/database` of each host.
    fn endpoints(url: &str) -> Vec<String> {
        let hosts = parsed(url).hosts;
        hosts
            .iter()
            .map(|host| {
                format!("{}@{}:{}/{}", host.account.user, host.account.host, host.account.port, host.account.database)
            })
            .collect()
    }

    #[test]
    fn urls_name_hosts_as_libpq_reads_them() {
        let cases: &[(&str, &[&str])] = &[
            ("postgres://u@h/d", &["u@h:5432/d"]),
            ("postgresql://u:p@h:5433/d?connect_timeout=3", &["u@h:5433/d"]),
            ("postgres://u@h", &["u@h:5432/u"]),
            ("postgres://u@h1:1,h2,h3:3/d", &["u@h1:1/d", "u@h2:5432/d", "u@h3:3/d"]),
            ("postgres://u@[::1]:7,[fe80::1]/d", &["u@::1:7/d", "u@fe80::1:5432/d"]),
            ("postgres://u%40x@h/d%2Fe", &["u@x@h:5432/d/e"]),
            ("postgres://u@%2Fvar%2Frun%2Fpg:99/d", &["u@/var/run/pg:99/d"]),
            ("postgres:///d?host=/tmp/x&user=u", &["u@/tmp/x:5432/d"]),
            ("postgres://ignored/?host=h1,h2&port=1,2&user=u&dbname=d", &["u@h1:1/d", "u@h2:2/d"]),
            ("postgres://?host=h1,h2&port=9&user=u&dbname=d", &["u@h1:9/d", "u@h2:9/d"]),
            ("postgres://u@?host=::1&dbname=d", &["u@::1:5432/d"]),
        ];
        for (url, expected) in cases {
            assert_eq!(endpoints(url), *expected, "{url}");
        }
    }

    #[test]
    fn parameters_reach_the_configuration() {
        let target = parsed(
            "postgres://u:p%3Aw@h/d?application_name=x&options=-c%20work_mem%3D1MB&connect_timeout=7\
             &keepalives=0&keepalives_idle=11&keepalives_interval=12&keepalives_count=13&tcp_user_timeout=1500\
             &target_session_attrs=primary&load_balance_hosts=random&channel_binding=disable&sslmode=disable",
        );
        assert!(target.must_write && target.shuffled && target.tls.is_none());
        let config = &target.hosts[0].config;
        assert_eq!(config.get_password(), Some(&b"p:w"[..]));
        assert_eq!(config.get_application_name(), Some("x"));
        assert_eq!(config.get_options(), Some("-c work_mem=1MB"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
        assert_eq!((config.get_keepalives(), config.get_keepalives_idle()), (false, Duration::from_secs(11)));
        assert_eq!(config.get_keepalives_interval(), Some(Duration::from_secs(12)));
        assert_eq!((config.get_keepalives_retries(), config.get_ssl_mode()), (Some(13), SslMode::Disable));

        let target = parsed("postgres://u@h,%2Ftmp/d");
        assert!(!target.must_write && !target.shuffled && target.tls.is_some());
        let [tcp, unix] = &target.hosts[..] else { panic!("two hosts") };
        assert_eq!((tcp.config.get_ssl_mode(), unix.config.get_ssl_mode()), (SslMode::Prefer, SslMode::Disable));
        assert_eq!(unix.config.get_hosts(), [Host::Unix("/tmp".into())]);
        assert_eq!(tcp.config.get_application_name(), Some("cloakroom"));
        assert!(tcp.config.get_password().is_none());
    }

    #[test]
    fn the_environment_fills_gaps() {
        let env = |name: &str| match name {
            "PGPASSWORD" => Some("from env".to_owned()),
            "PGUSER" => Some("someone".to_owned()),
            "PGPASSFILE" => Some("/some/file".to_owned()),
            _ => None,
        };
        let target = parse("postgres://h", &env).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert_eq!(target.hosts[0].config.get_password(), Some(&b"from env"[..]));
        assert_eq!(target.hosts[0].config.get_user(), Some("someone"));
        assert_eq!(target.hosts[0].account.database, "someone");
        assert_eq!(target.passfile.as_deref(), Some(Path::new("/some/file")));
        let target = parse("postgres://u:own@h", &env).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert_eq!(target.hosts[0].config.get_password(), Some(&b"own"[..]));
    }

    #[test]
    fn faults_are_told_without_secrets() {
        let cases: &[(&str, &[&str])] = &[
            ("mysql://u:secret@h/d", &["must begin with"]),
            ("postgres://u:sec/ret@h/d", &["percent-encoded"]),
            ("postgres://u:sec?ret@h/d", &["percent-encoded"]),
            ("postgres://u:secret@h:99999/d", &["port"]),
            ("postgres://u:secret@h:0/d", &["port"]),
            ("postgres://u:secret@[::1/d", &["no `]`"]),
            ("postgres://u:sec%FFret@h/d", &["not UTF-8"]),
            ("postgres://u:secret@h/d?secret", &["no `=`"]),
            ("postgres://u@h1,h2/d?port=1,2,3", &["one port"]),
            ("postgres://u@h1,h2/d?hostaddr=127.0.0.1", &["as many `hostaddr`"]),
            ("postgres://u@h/d?passfile=/no/such/file", &["/no/such/file"]),
            ("postgres://u@h/d?sslmode=verify-full", &["`sslrootcert`"]),
            ("postgres://u@h/d?sslcert=/x&sslmode=require", &["`sslkey`"]),
            ("postgres://u@h/d?sslnegotiation=direct", &["direct"]),
            ("postgres://u@h/d?gssencmode=require", &["`gssencmode`"]),
            ("postgres://u@h/d?sslcrl=x", &["`sslcrl`"]),
            ("postgres://u@h/d?SECRET=x", &["not known"]),
            (
                "postgres://u@h/d?sslmode=secret&target_session_attrs=standby&connect_timeout=secret",
                &["`sslmode`", "`target_session_attrs`", "`connect_timeout`"],
            ),
        ];
        for (url, expected) in cases {
            let faults = parse(url, &nothing).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert_eq!(faults.len(), expected.len(), "{url}: {faults:?}");
            for (fault, expected) in faults.iter().zip(*expected) {
                assert!(fault.contains(expected), "{url}: {fault}");
                assert!(!fault.to_lowercase().contains("secret") && !fault.contains("ret@"), "{fault}");
            }
        }
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let cases = [
            ("postgres://u:secret@h1:1,[::1]/d?sslmode=disable", "postgres://u@h1:1,[::1]:5432/d"),
            ("postgres://h/d?password=secret&user=u", "postgres://u@h:5432/d"),
            ("postgres:///d?host=/tmp", "postgres:///tmp:5432/d"),
            ("postgres://u:sec/ret@h/d", "postgres://…"),
            ("nonsense secret", "postgres://…"),
        ];
        for (url, expected) in cases {
            assert_eq!(redacted(url), expected, "{url}");
        }
    }
}
