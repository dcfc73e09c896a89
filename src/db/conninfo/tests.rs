use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{Conninfo, Host, Root, SslMode, settings::default_host};

type Variables<'a> = &'a [(&'a str, &'a str)];

fn parse(text: &str, variables: Variables<'_>) -> Result<Conninfo, String> {
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Conninfo::parse(text, Some("me"), &lookup).map_err(|error| error.to_string())
}

/// What was understood, with the password in the end after a bar, where there is one.
fn shown(conninfo: &Conninfo) -> String {
    let password = conninfo.endpoints[0].password.as_ref().map(|password| format!(" | {}", password.as_str()));
    format!("{conninfo}{}", password.unwrap_or_default())
}

#[test]
fn understands_what_psql_understands() {
    let cases = [
        // URLs
        ("postgresql://h", "h:5432/me as me"),
        ("postgres://h", "h:5432/me as me"),
        ("postgresql://h/d", "h:5432/d as me"),
        ("postgresql://u@h", "h:5432/u as u"),
        ("postgresql://u@h:5433/d", "h:5433/d as u"),
        ("postgresql://u:p@h:5433/d", "h:5433/d as u | p"),
        ("postgresql://u:@h/d", "h:5432/d as u"),
        ("postgresql://u:p%40%2F%3A%25@h/d", "h:5432/d as u | p@/:%"),
        ("postgresql://u:p?q#r+s@h/d", "h:5432/d as u | p?q#r+s"),
        ("postgresql://u:a:b@h/d", "h:5432/d as u | a:b"),
        ("postgresql://u%20v@h/d%20e", "h:5432/d e as u v"),
        ("postgresql://J%C3%B6rg@h/d", "h:5432/d as Jörg"),
        ("postgresql://[::1]/d", "[::1]:5432/d as me"),
        ("postgresql://u@[2001:db8::1]:6000/d", "[2001:db8::1]:6000/d as u"),
        ("postgresql://a,b:2,c/d", "a:5432,b:2,c:5432/d as me"),
        ("postgresql://a:1,[::2]:2/d", "a:1,[::2]:2/d as me"),
        ("postgresql://%2Fvar%2Frun/d", "/var/run:5432/d as me"),
        ("postgresql://u@%2Ftmp%2Fx:6000/d", "/tmp/x:6000/d as u"),
        ("postgresql:///d?host=/run/pg", "/run/pg:5432/d as me"),
        ("postgresql://h/d?user=x&password=y", "h:5432/d as x | y"),
        ("postgresql://h/d?password=y%26z%3D", "h:5432/d as me | y&z="),
        ("postgresql://h:1/d?host=i&port=2", "i:2/d as me"),
        ("postgresql://h?dbname=d", "h:5432/d as me"),
        ("postgresql://h/d?", "h:5432/d as me"),
        ("postgresql:///d?hostaddr=10.0.0.1", "10.0.0.1:5432/d as me"),
        ("  postgresql://h/d  ", "h:5432/d as me"),
        // Keywords
        ("host=h", "h:5432/me as me"),
        ("host=h port=5433 dbname=d user=u password=p", "h:5433/d as u | p"),
        ("host = h  dbname\t=\nd", "h:5432/d as me"),
        ("host=h dbname='my db'", "h:5432/my db as me"),
        (r"host=h dbname='it\'s' user='a\\b'", r"h:5432/it's as a\b"),
        (r"host=h password=two\ words", "h:5432/me as me | two words"),
        ("host=h password=''", "h:5432/me as me"),
        ("host=h password='= = ='", "h:5432/me as me | = = ="),
        ("host=h password=a=b", "h:5432/me as me | a=b"),
        ("host=h password=a://b", "h:5432/me as me | a://b"),
        ("host=a host=b", "b:5432/me as me"),
        ("host=/tmp/x", "/tmp/x:5432/me as me"),
        ("host=a,b port=1", "a:1,b:1/me as me"),
        ("host=a,b port=1,", "a:1,b:5432/me as me"),
        ("host=::1", "[::1]:5432/me as me"),
        ("host=h hostaddr=127.0.0.1", "h:5432/me as me"),
        ("host=h client_encoding=utf8 gssencmode=disable", "h:5432/me as me"),
    ];
    for (text, expected) in cases {
        let conninfo = parse(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(shown(&conninfo), expected, "{text}");
    }
}

#[test]
fn complains_with_the_remedy_and_without_the_value() {
    let cases = [
        ("mydb", "has a word without \"=\""),
        ("host", "has a word without \"=\""),
        ("host=h password=two hunter2", "has a word without \"=\""),
        ("host=h password=two hunter2=x", "that libpq does not know: is a value"),
        ("host=h dbname='open", "no closing quote"),
        ("hots=h", "libpq does not know: hots (did you mean host?)"),
        ("sslmod=require", "(did you mean sslmode?)"),
        ("host=h schema=public", "libpq does not know: schema"),
        ("mysql://h/d", "does not begin with postgresql://"),
        ("jdbc:postgresql://h/d", "does not begin with postgresql://"),
        ("postgresql+psycopg2://h/d", "does not begin with postgresql://"),
        ("postgresql://u:hunter2@@h/d", "write @ as %40"),
        ("postgresql://u:hunt/er2@h/d", "write @ as %40"),
        ("postgresql://u:hunter2/x", "from 1 to 65535"),
        ("postgresql://u:p%4@h/d", "write % as %25"),
        ("postgresql://u:p%zz@h/d", "write % as %25"),
        ("postgresql://u:p%+1@h/d", "write % as %25"),
        ("postgresql://u:p%00@h/d", "%00"),
        ("postgresql://u:p%ff@h/d", "not UTF-8"),
        ("postgresql://[::1/d", "no closing \"]\""),
        ("postgresql://[::1]x/d", "only :port can follow"),
        ("postgresql://h/d?sslmode", "has no \"=\""),
        ("postgresql://h/d?password=a=hunter2", "two \"=\""),
        ("postgresql://h/d?connection_limit=1", "connection_limit"),
        ("postgresql://h:0/d", "from 1 to 65535"),
        ("postgresql://h:65536/d", "from 1 to 65535"),
        ("host=a,b port=1,2,3", "as many as there are hosts, 2"),
        ("host=a,b hostaddr=1.2.3.4", "as many addresses as there are hosts"),
        ("hostaddr=localhost", "an IPv4 or IPv6 address"),
        ("host=@abstract", "socket's directory"),
        ("host=h sslmode=verify_full", "one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("host=h sslmode=verify_full", "did you mean verify-full?"),
        ("host=h sslrootcert=system sslmode=require", "verify-full where sslrootcert is system"),
        ("host=h connect_timeout=soon", "connect_timeout in the connection string must be a whole number"),
        ("host=h target_session_attrs=standby", "one of any, read-write, primary"),
        ("host=h channel_binding=maybe", "one of disable, prefer, require"),
        ("host=h keepalives=yes", "one of 0, 1"),
        ("service=prod", "service is not supported: write out"),
        ("host=h sslcrl=x", "sslcrl is not supported"),
        ("host=h requirepeer=postgres", "requirepeer is not supported"),
    ];
    for (text, expected) in cases {
        let Err(complaint) = parse(text, &[]) else { panic!("{text} passed") };
        assert!(complaint.contains(expected), "{text}: {complaint}");
        assert!(!complaint.contains("hunt") && !complaint.contains("er2"), "{complaint}");
    }
}

#[test]
fn variables_stand_below_the_string_and_above_the_defaults() {
    let variables: Variables<'_> = &[
        ("PGHOST", "envhost"),
        ("PGPORT", "6543"),
        ("PGUSER", "envuser"),
        ("PGPASSWORD", "envpass"),
        ("PGDATABASE", "envdb"),
        ("PGSSLMODE", "require"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGAPPNAME", "loader"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGOPTIONS", "-c geqo=off"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ];
    let cases = [
        ("", "envhost:6543/envdb as envuser | envpass"),
        ("postgresql://", "envhost:6543/envdb as envuser | envpass"),
        ("postgresql://h/d", "h:6543/d as envuser | envpass"),
        ("host=h port='' user=u password=p", "h:5432/envdb as u | p"),
    ];
    for (text, expected) in cases {
        assert_eq!(shown(&parse(text, variables).unwrap()), expected, "{text}");
    }
    let conninfo = parse("", variables).unwrap();
    assert_eq!(conninfo.tls.mode, SslMode::Require);
    assert_eq!(conninfo.tls.root, Some(Root::File("/ca.pem".into())));
    assert_eq!(conninfo.application_name, "loader");
    assert_eq!(conninfo.connect_timeout.unwrap().as_secs(), 7);
    assert_eq!(conninfo.options.as_deref(), Some("-c geqo=off"));
    assert!(conninfo.read_write);
    assert!(parse("host=h", &[("PGSSLMODE", "full")]).err().unwrap().starts_with("PGSSLMODE must be one of"));
    assert!(parse("host=h", &[("PGSERVICE", "prod")]).err().unwrap().contains("PGSERVICE is not supported"));
    assert!(parse("host=h", &[("PGSERVICE", "")]).is_ok());
}

#[test]
fn tls_follows_libpq() {
    let mode = |text: &str| parse(text, &[]).unwrap().tls.mode;
    assert_eq!(mode("host=h"), SslMode::Prefer);
    assert_eq!(mode("postgresql://h/d?ssl=true"), SslMode::Require);
    assert_eq!(mode("postgresql://h/d?sslmode=verify-ca"), SslMode::VerifyCa);
    assert_eq!(mode("host=h sslrootcert=system"), SslMode::VerifyFull);
    let tls = parse("host=h sslcert=c.pem sslkey=k.pem", &[("HOME", "/home/me")]).unwrap().tls;
    assert_eq!(tls.certificate.as_deref(), Some(Path::new("c.pem")));
    assert_eq!(tls.key.as_deref(), Some(Path::new("k.pem")));
    assert_eq!(tls.directory.as_deref(), Some(Path::new("/home/me/.postgresql")));
}

#[test]
fn several_hosts_mean_the_one_that_takes_writes() {
    assert!(!parse("host=a", &[]).unwrap().read_write);
    assert!(parse("host=a,b", &[]).unwrap().read_write);
    assert!(!parse("host=a,b target_session_attrs=any", &[]).unwrap().read_write);
}

#[test]
fn each_host_has_its_own_password_in_the_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    fs::write(&file, "a:5432:*:me:one\nb:*:*:*:two\nlocalhost:*:*:*:socket\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let variables: Variables<'_> = &[("HOME", home.path().to_str().unwrap())];
    let passwords = |text: &str, variables| {
        let conninfo = parse(text, variables).unwrap();
        let passwords = conninfo.endpoints.iter().map(|endpoint| endpoint.password.as_ref().map(|p| p.to_string()));
        passwords.map(Option::unwrap_or_default).collect::<Vec<_>>().join(",")
    };
    assert_eq!(passwords("host=a,b,c", variables), "one,two,");
    assert_eq!(passwords("host=/tmp", variables), "socket");
    assert_eq!(passwords("host=/elsewhere", variables), "");
    assert_eq!(passwords("host=a,b password=p", variables), "p,p");
    let named: Variables<'_> = &[("PGPASSFILE", file.to_str().unwrap()), ("HOME", "/nowhere")];
    assert_eq!(passwords("host=a", named), "one");
    assert_eq!(passwords(&format!("host=b passfile={}", file.display()), &[]), "two");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let conninfo = parse("host=a", variables).unwrap();
    assert!(conninfo.endpoints[0].password.is_none());
    assert!(conninfo.warnings[0].contains(".pgpass passed over"));
}

#[test]
fn without_a_host_the_socket_of_a_server_that_listens_is_taken() {
    let listening = |path: &str| default_host(5432, &|socket: &Path| socket == Path::new(path));
    assert_eq!(listening("/var/run/postgresql/.s.PGSQL.5432"), Host::Unix("/var/run/postgresql".into()));
    assert_eq!(listening("/tmp/.s.PGSQL.5432"), Host::Unix("/tmp".into()));
    assert_eq!(listening("/tmp/.s.PGSQL.5433"), Host::Tcp("localhost".into()));
}

#[test]
fn somebody_must_connect() {
    let nobody = Conninfo::parse("host=h", None, &|_| None).err().unwrap().to_string();
    assert!(nobody.contains("PGUSER"), "{nobody}");
}
