//! The two written forms of a connection string, taken apart into keywords and values.
//!
//! Format: PostgreSQL 15, "34.1.1. Connection Strings". What the values mean, and what stands in for missing ones, is
//! not known here. No complaint quotes the string: any part of it can be a piece of a password.

use super::{ConninfoError, keywords};

/// Keywords and values in the order written; of a keyword written twice the last holds, as in libpq.
pub(super) type Written = Vec<(&'static str, String)>;

/// Takes a connection string apart; an empty one holds nothing.
///
/// # Errors
/// If it is neither a URL nor `keyword=value` pairs, or has a keyword that libpq or masq does not know.
pub(super) fn parse(text: &str) -> Result<Written, ConninfoError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        return url(rest);
    }
    match text.split_once("://") {
        Some((scheme, _)) if !scheme.contains(['=', ' ']) => Err(ConninfoError::Syntax(
            "the connection string is a URL that does not begin with postgresql:// or postgres://".into(),
        )),
        _ => pairs(text),
    }
}

/// `keyword=value keyword='va lue'`: a backslash makes the next character an ordinary one.
fn pairs(text: &str) -> Result<Written, ConninfoError> {
    let mut written = Written::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(ConninfoError::Syntax(
                "the connection string has a word without \"=\": write keyword=value, values with \
                 spaces in 'quotes', or postgresql://…"
                    .into(),
            ));
        };
        let keyword = keywords::known(keyword, written.last().map(|(keyword, _)| *keyword))?;
        let (value, after) = value(after.trim_start())?;
        written.push((keyword, value));
        rest = after.trim_start();
    }
    Ok(written)
}

/// One value, quoted or not, and what follows it.
fn value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted {
        return Err(ConninfoError::Syntax("a quoted value in the connection string has no closing quote".into()));
    }
    Ok((value, ""))
}

/// `[user[:password]@][host[:port][,…]][/dbname][?keyword=value[&…]]`, each part percent-encoded.
fn url(text: &str) -> Result<Written, ConninfoError> {
    let mut written = Written::new();
    // As in libpq, an @ before the first slash ends the credentials, and these may hold a bare question mark.
    let text = match text.find(['@', '/']).filter(|at| text[*at..].starts_with('@')) {
        Some(at) => {
            let (user, password) = text[..at].split_once(':').unwrap_or((&text[..at], ""));
            store(&mut written, "user", user)?;
            store(&mut written, "password", password)?;
            &text[at + 1..]
        }
        None => text,
    };
    let (address, parameters) = text.split_once('?').unwrap_or((text, ""));
    let (hosts, database) = address.split_once('/').unwrap_or((address, ""));
    if hosts.contains('@') || database.contains('@') {
        return Err(ConninfoError::Syntax(
            "the URL has an \"@\" where none can be: in a user name or password, write @ as %40, / as %2F, : as %3A"
                .into(),
        ));
    }
    let (hosts, ports) = endpoints(hosts)?;
    store(&mut written, "host", &hosts)?;
    store(&mut written, "port", &ports)?;
    store(&mut written, "dbname", database)?;
    url_parameters(parameters, &mut written)?;
    Ok(written)
}

/// `keyword=value&keyword=value`
fn url_parameters(parameters: &str, written: &mut Written) -> Result<(), ConninfoError> {
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or_else(|| {
            ConninfoError::Syntax("a parameter of the URL has no \"=\": write ?keyword=value&keyword=value".into())
        })?;
        if value.contains('=') {
            return Err(ConninfoError::Syntax(
                "a parameter of the URL has two \"=\": within a value, write = as %3D and & as %26".into(),
            ));
        }
        // JDBC's spelling, which libpq takes too.
        if (name, value) == ("ssl", "true") {
            written.push(("sslmode", "require".into()));
            continue;
        }
        let name = keywords::known(&decode(name)?, written.last().map(|(keyword, _)| *keyword))?;
        written.push((name, decode(value)?));
    }
    Ok(())
}

/// Keeps what a part of the URL says, if it says anything: an absent part leaves the default.
fn store(written: &mut Written, keyword: &'static str, encoded: &str) -> Result<(), ConninfoError> {
    if !encoded.is_empty() {
        written.push((keyword, decode(encoded)?));
    }
    Ok(())
}

/// `a:1,[::1],b` as the lists that the keywords `host` and `port` take: `a,::1,b` and `1,,`.
fn endpoints(text: &str) -> Result<(String, String), ConninfoError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for endpoint in text.split(',') {
        let (host, port) = match endpoint.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest
                    .split_once(']')
                    .ok_or_else(|| ConninfoError::Syntax("an IPv6 address in the URL has no closing \"]\"".into()))?;
                match after.strip_prefix(':') {
                    Some(port) => (host, port),
                    None if after.is_empty() => (host, ""),
                    None => {
                        return Err(ConninfoError::Syntax("only :port can follow an IPv6 address in the URL".into()));
                    }
                }
            }
            None => endpoint.split_once(':').unwrap_or((endpoint, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    Ok((hosts.join(","), ports))
}

/// Resolves `%XX`. A plus sign is a plus sign.
fn decode(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(0) => {
                return Err(ConninfoError::Syntax("the URL has a %00, which no value can hold".into()));
            }
            Some(decoded) => bytes.push(decoded),
            None => {
                return Err(ConninfoError::Syntax(
                    "the URL has a % without two hexadecimal digits after it: write % as %25".into(),
                ));
            }
        }
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError::Syntax("the URL, once decoded, is not UTF-8".into()))
}
