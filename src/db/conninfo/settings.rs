//! What the keywords' values mean, and what stands in for those that were not written.
//!
//! Three layers: the connection string, the `PG*` variables, libpq's defaults.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    ChannelBinding, ConninfoError, Endpoint, Host, Keepalives, Root, SslMode, TlsOptions, keywords, parse, passfile,
};

/// Where a server's socket is looked for when no host is named: Debian's place and PostgreSQL's own.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What was written, and the environment below it.
pub(super) struct Settings<'a> {
    pub(super) written: parse::Written,
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Settings<'_> {
    /// The value of a keyword. One that is written empty hides its variable and stands for the default, as in libpq.
    pub(super) fn get(&self, keyword: &str) -> Option<String> {
        let written = self.written.iter().rev().find(|(name, _)| *name == keyword);
        let value = match written {
            Some((_, value)) => Some(value.clone()),
            None => keywords::variable(keyword).and_then(self.lookup),
        };
        value.filter(|value| !value.is_empty())
    }

    fn wrong(&self, keyword: &str, expected: impl Into<String>) -> ConninfoError {
        let variable = keywords::variable(keyword).filter(|_| self.written.iter().all(|(name, _)| *name != keyword));
        let place = variable.map_or_else(|| format!("{keyword} in the connection string"), str::to_owned);
        ConninfoError::Value { place, expected: expected.into() }
    }

    /// A value out of a closed set, by its place in it.
    fn choice<T: Copy>(&self, keyword: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConninfoError> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == value) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let meant = keywords::did_you_mean(&value, names.iter().copied());
                Err(self.wrong(keyword, format!("one of {}{meant}", names.join(", "))))
            }
        }
    }

    /// A whole number; what is zero or less stands for the default, as in libpq.
    fn number(&self, keyword: &str) -> Result<Option<u32>, ConninfoError> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        let number: i32 = value.trim().parse().map_err(|_| self.wrong(keyword, "a whole number"))?;
        Ok(u32::try_from(number).ok().filter(|number| *number > 0))
    }

    pub(super) fn seconds(&self, keyword: &str) -> Result<Option<Duration>, ConninfoError> {
        Ok(self.number(keyword)?.map(|seconds| Duration::from_secs(seconds.into())))
    }

    fn list(&self, keyword: &str) -> Vec<String> {
        self.get(keyword).map(|value| value.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Hosts, addresses and ports, side by side.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, ConninfoError> {
        let (hosts, addresses, ports) = (self.list("host"), self.list("hostaddr"), self.list("port"));
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(self.wrong("hostaddr", format!("as many addresses as there are hosts, {}", hosts.len())));
        }
        let count = hosts.len().max(addresses.len()).max(1);
        if ports.len() > 1 && ports.len() != count {
            return Err(self.wrong("port", format!("one port, or as many as there are hosts, {count}")));
        }
        (0..count)
            .map(|index| {
                let port = ports.get(index).or(ports.first()).map_or("", String::as_str);
                let port = self.port(port)?;
                let address = addresses.get(index).filter(|address| !address.is_empty());
                let address: Option<IpAddr> = match address {
                    Some(text) => Some(text.parse().map_err(|_| self.wrong("hostaddr", "an IPv4 or IPv6 address"))?),
                    None => None,
                };
                let host = match (hosts.get(index).filter(|host| !host.is_empty()), address) {
                    (Some(host), _) => self.host(host)?,
                    (None, Some(address)) => Host::Tcp(address.to_string()),
                    (None, None) => default_host(port, &|socket| socket.exists()),
                };
                Ok(Endpoint { host, address, port, password: None })
            })
            .collect()
    }

    fn host(&self, host: &str) -> Result<Host, ConninfoError> {
        match host {
            directory if directory.starts_with('/') => Ok(Host::Unix(directory.into())),
            name if name.starts_with('@') || name.contains(|c: char| c.is_whitespace() || c == '/') => {
                Err(self.wrong("host", "a host name, an address or the absolute path of a socket's directory"))
            }
            name => Ok(Host::Tcp(name.to_owned())),
        }
    }

    fn port(&self, port: &str) -> Result<u16, ConninfoError> {
        if port.is_empty() {
            return Ok(5432);
        }
        let parsed = port.trim().parse().ok().filter(|port| *port != 0);
        parsed.ok_or_else(|| {
            self.wrong("port", "a number from 1 to 65535 (in a URL's password, write / as %2F, : as %3A and @ as %40)")
        })
    }

    /// The password as written or in PGPASSWORD holds everywhere; the password file may know another for each host.
    /// Answers what is to be said about that file.
    pub(super) fn fill_passwords(&self, endpoints: &mut [Endpoint], user: &str, database: &str) -> Vec<String> {
        if let Some(password) = self.get("password").map(Zeroizing::new) {
            for endpoint in endpoints {
                endpoint.password = Some(password.clone());
            }
            return Vec::new();
        }
        let home = (self.lookup)("HOME").filter(|home| !home.is_empty());
        let path = self.get("passfile").or_else(|| home.map(|home| format!("{home}/.pgpass")));
        let text = match path.map_or(Ok(None), |path| passfile::read(Path::new(&path))) {
            Ok(Some(text)) => text,
            Ok(None) => return Vec::new(),
            Err(warning) => return vec![warning],
        };
        for endpoint in endpoints {
            let host = match &endpoint.host {
                Host::Tcp(host) => host.clone(),
                Host::Unix(path) if SOCKET_DIRECTORIES.iter().any(|usual| path == Path::new(usual)) => {
                    "localhost".into()
                }
                Host::Unix(path) => path.to_string_lossy().into_owned(),
            };
            let wanted = passfile::Wanted { host: &host, port: endpoint.port, database, user };
            endpoint.password = passfile::find(&text, &wanted).map(Zeroizing::new);
        }
        Vec::new()
    }

    pub(super) fn tls(&self) -> Result<TlsOptions, ConninfoError> {
        let root = self.get("sslrootcert").map(|root| match root.as_str() {
            "system" => Root::System,
            _ => Root::File(root.into()),
        });
        let modes = [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ];
        // Anybody can have a certificate from the system's roots, so only the name makes it mean something.
        let mode = match (self.choice("sslmode", &modes)?, &root) {
            (None, Some(Root::System)) => SslMode::VerifyFull,
            (Some(mode), Some(Root::System)) if mode != SslMode::VerifyFull => {
                return Err(self.wrong("sslmode", "verify-full where sslrootcert is system"));
            }
            (mode, _) => mode.unwrap_or(SslMode::Prefer),
        };
        let home = (self.lookup)("HOME").filter(|home| !home.is_empty());
        Ok(TlsOptions {
            mode,
            root,
            certificate: self.get("sslcert").map(PathBuf::from),
            key: self.get("sslkey").map(PathBuf::from),
            directory: home.map(|home| Path::new(&home).join(".postgresql")),
        })
    }

    pub(super) fn channel_binding(&self) -> Result<ChannelBinding, ConninfoError> {
        let choices = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        Ok(self.choice("channel_binding", &choices)?.unwrap_or(ChannelBinding::Prefer))
    }

    pub(super) fn read_write(&self, hosts: usize) -> Result<bool, ConninfoError> {
        // A standby cannot be written to, so `standby`, `read-only` and `prefer-standby` are no choices here.
        let choices = [("any", false), ("read-write", true), ("primary", true)];
        Ok(self.choice("target_session_attrs", &choices)?.unwrap_or(hosts > 1))
    }

    pub(super) fn keepalives(&self) -> Result<Keepalives, ConninfoError> {
        let milliseconds = self.number("tcp_user_timeout")?;
        Ok(Keepalives {
            off: self.choice("keepalives", &[("0", true), ("1", false)])?.unwrap_or(false),
            idle: self.seconds("keepalives_idle")?,
            interval: self.seconds("keepalives_interval")?,
            count: self.number("keepalives_count")?,
            user_timeout: milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into())),
        })
    }
}

/// The socket directory in which a server listens, else `localhost`. libpq has one directory compiled in; which one
/// depends on who built it.
pub(super) fn default_host(port: u16, exists: &dyn Fn(&Path) -> bool) -> Host {
    let listens = |directory: &&str| exists(&Path::new(directory).join(format!(".s.PGSQL.{port}")));
    match SOCKET_DIRECTORIES.into_iter().find(listens) {
        Some(directory) => Host::Unix(directory.into()),
        None => Host::Tcp("localhost".into()),
    }
}
