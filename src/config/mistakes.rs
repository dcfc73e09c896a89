//! Every complaint of a configuration, word for word.

use super::{tests::said, *};

/// The complaints of a file, one a line, as a user sees them.
fn complaints(text: &str) -> String {
    let sources = Sources { file: Some(("masq.toml", text)), ..Sources::default() };
    Config::check(&sources).map_or_else(|complaints| complaints.to_string(), |_| String::new())
}

/// Mistakes outside `[columns]`, each with all that is said of it.
#[test]
fn mistakes_in_settings() {
    for (text, expected) in [
        ("[queue]\nvisibilty = \"30s\"", "2: unknown key \"visibilty\" in [queue]; did you mean \"visibility\"?"),
        ("[qeue]\nurl = 1", "1: unknown key \"qeue\"; did you mean \"queue\"?"),
        ("unknown_feilds = \"drop\"", "1: unknown key \"unknown_feilds\"; did you mean \"unknown_fields\"?"),
        ("nonsense = 1", "1: unknown key \"nonsense\""),
        (
            "[queue]\nenvelope = \"SNS\"",
            "2: [queue] envelope must be \"none\", \"sns\", \"eventbridge\" or \"auto\", not \"SNS\"; did you mean \
             \"sns\"?",
        ),
        (
            "[queue]\ndedupe = \"\"\nlinger = \"1s\"",
            "2: [queue] dedupe must be \"body:\" and a field, or \"attribute:\" and a message attribute's name\n\
             3: unknown key \"linger\" in [queue]",
        ),
        (
            "[queue]\ndedupe = \"body:/~\"",
            "2: [queue] dedupe names a field that is not a JSON Pointer: write \"~0\" for a tilde in a key and \"~1\" \
             for a slash",
        ),
        ("retention = \"2d\"", "1: unknown key \"retention\"; it belongs in [ledger]"),
        (
            "[keys]\nunknown_fields = \"drop\"",
            "2: unknown key \"unknown_fields\" in [keys]; it belongs at the top of the file, above the first section",
        ),
        ("queue = \"http://q\"", "1: \"queue\" must be a section, [queue], not a string"),
        ("[[queue]]\nurl = \"http://q\"", "1: \"queue\" must be a section, [queue], not an array"),
        ("columns = []", "1: \"columns\" must be a section, [columns], not an array"),
        ("[queue]\nvisibility = \"1s\"", "2: [queue] visibility must be from 2s to 12h, not 1s"),
        ("[queue]\nvisibility = \"13h\"", "2: [queue] visibility must be from 2s to 12h, not 13h"),
        ("[queue]\nvisibility = 30", "2: [queue] visibility must be a string, not an integer"),
        (
            "[queue]\nvisibility = \"30\"",
            "2: [queue] visibility must be a whole number and a unit (d, h, m, s, ms), from 2s to 12h",
        ),
        (
            "[queue]\nmax_in_flight_bytes = \"64MB\"",
            "2: [queue] max_in_flight_bytes must be a whole number and a unit (GiB, MiB, KiB, B), from 1MiB to 64GiB",
        ),
        (
            "[queue]\nmax_in_flight_bytes = \"9999999999999GiB\"",
            "2: [queue] max_in_flight_bytes must be from 1MiB to 64GiB, not 9999999999999GiB",
        ),
        ("[queue]\nurl = \"login-queue\"", "2: [queue] url must be a URL that begins with https:// or http://"),
        ("[queue]\nendpoint = \"http://\"", "2: [queue] endpoint must be a URL that begins with https:// or http://"),
        ("[queue]\nendpoint = \"http:///q\"", "2: [queue] endpoint must be a URL that begins with https:// or http://"),
        ("[queue]\nurl = \"http://q:1x/q\"", "2: [queue] url must have a port from 1 to 65535, or none"),
        ("[queue]\nurl = \"http://[::1]:/q\"", "2: [queue] url must have a port from 1 to 65535, or none"),
        ("[queue]\nurl = \"http://u:p@q/q\"", "2: [queue] url must name a host, without user or password"),
        ("[database]\nconnections = 0", "2: [database] connections must be a whole number from 1 to 64"),
        ("[database]\nconnections = \"4\"", "2: [database] connections must be a whole number from 1 to 64"),
        ("[database]\nurl = \"\"", "2: [database] url must not be empty"),
        ("[database]\npassword_file = \"\"", "2: [database] password_file must not be empty"),
        ("[database]\nurl = { password = \"hunter2\" }", "2: [database] url must be a string, not a table"),
        ("[keys]\ndir = \"\"", "2: [keys] dir must not be empty"),
        ("[ledger]\nretention = \"12h\"", "2: [ledger] retention must be from 1d to 90d, not 12h"),
        (
            "[http]\nlisten = \":9464\"",
            "2: [http] listen must be an IP address and a port, like \"127.0.0.1:9464\", or \"off\"",
        ),
        (
            "unknown_fields = \"rejct\"",
            "1: unknown_fields must be \"drop\" or \"reject\", not \"rejct\"; did you mean \"reject\"?",
        ),
        ("accept_reversible_masks = \"yes\"", "1: accept_reversible_masks must be true or false, not a string"),
        ("[table]\nname = \"\"", "2: [table] name must not be empty"),
        ("[table]\nname = \"a\\u0000b\"", "2: [table] name must not hold a NUL character"),
        (
            "[table]\nschema = \"öööööööööööööööööööööööööööööööö\"",
            "2: [table] schema has 64 bytes; PostgreSQL keeps 63 of a name",
        ),
        ("[columns]", "1: [columns] must have at least one column"),
    ] {
        let expected: Vec<_> = expected.lines().map(|line| format!("masq.toml:{line}")).collect();
        assert_eq!(complaints(text), expected.join("\n"), "{text}");
    }
}

/// Columns `x` with these keys, each with all that is said of it.
fn assert_complaints(cases: &[(&str, &str)]) {
    for (keys, expected) in cases {
        let expected: Vec<_> = expected.lines().map(|line| format!("masq.toml:2: {line}")).collect();
        assert_eq!(complaints(&format!("[columns]\nx = {{ {keys} }}\n")), expected.join("\n"), "{keys}");
    }
}

#[test]
fn mistakes_in_a_columns_keys() {
    assert_complaints(&[
        (
            "typ = 'text', from = 'a'",
            "unknown key \"typ\" in column \"x\"; did you mean \"type\"?\n\
             column \"x\": type is missing: the type of the column",
        ),
        ("type = 'text'", "column \"x\": from is missing: the field of the message"),
        ("from = 7, type = 'text'", "column \"x\": from must be a string, not an integer"),
        ("from = '', type = 'text'", "column \"x\": from must not be empty"),
        (
            "from = 'a..b', type = 'text'",
            "column \"x\": from must have a key on both sides of each dot; for a key with dots write a JSON Pointer, \
             like \"/a.b\"",
        ),
        (
            "from = '/a~2', type = 'text'",
            "column \"x\": from is not a JSON Pointer: write \"~0\" for a tilde in a key and \"~1\" for a slash",
        ),
        (
            "from = 'a', type = 'varchr(3)'",
            "column \"x\": type must be a type that masq writes, not \"varchr(3)\"; did you mean \"varchar\"?",
        ),
        (
            "from = 'a', type = 'text', as = 'ipv4'",
            "column \"x\": as must be \"text\", \"integer\", \"number\", \"boolean\", \"date\", \"timestamp\", \
             \"uuid\", \"ip\", \"version\" or \"json\", not \"ipv4\"",
        ),
        (
            "from = 'a', type = 'text', mask = 'hash'",
            "column \"x\": mask must be \"hmac\", \"sha256\", \"prefix\" or \"redact\", not \"hash\"",
        ),
    ]);
}

#[test]
fn masks_that_do_not_go_with_the_rest() {
    assert_complaints(&[
        ("from = 'a', type = 'date', as = 'ip'", "column \"x\": as = \"ip\" cannot be stored in date"),
        (
            "from = 'a', type = 'smallint', as = 'version'",
            "column \"x\": as = \"version\" cannot be stored in smallint",
        ),
        ("from = 'a', type = 'bytea'", "column \"x\": type bytea holds tokens alone; use text, or add mask = \"hmac\""),
        (
            "from = 'a', type = 'varchar(63)', mask = 'hmac'",
            "column \"x\": type varchar(63) cannot hold a token of 64 characters; use text, varchar(64) or bytea",
        ),
        (
            "from = 'a', type = 'inet', mask = 'hmac'",
            "column \"x\": type inet cannot hold a token of 64 characters; use text, varchar(64) or bytea",
        ),
        (
            "from = 'a', type = 'text', as = 'date', mask = 'hmac'",
            "column \"x\": as = \"date\" cannot become a token; only text, ip, uuid and version can",
        ),
        (
            "from = 'a', type = 'text', mask = 'sha256'",
            "column \"x\": mask = \"sha256\" can be undone by trying: use \"hmac\", or write accept_reversible_masks = \
             true at the top of the file",
        ),
        (
            "from = 'a', type = 'text', mask = 'prefix'",
            "column \"x\": mask = \"prefix\" is for as = \"ip\" alone, not \"text\"",
        ),
        (
            "from = 'a', type = 'bytea', as = 'ip', mask = 'prefix'",
            "column \"x\": type bytea cannot hold any address's network; use text, varchar(19) or inet",
        ),
        (
            "from = 'a', type = 'varchar(18)', as = 'ip', mask = 'prefix'",
            "column \"x\": type varchar(18) cannot hold any address's network; use text, varchar(19) or inet",
        ),
        ("from = 'a', type = 'text', domain = 'd'", "column \"x\": domain is for mask = \"hmac\" alone"),
        (
            "from = 'a', type = 'text', mask = 'redact', domain = 'd'",
            "column \"x\": domain is for mask = \"hmac\" alone",
        ),
        ("from = 'a', type = 'text', mask = 'hmac', domain = ''", "column \"x\": domain must not be empty"),
        (
            "from = 'a', type = 'text', mask = 'hmac', domain = \"\\u0000\"",
            "column \"x\": domain must not hold a NUL character",
        ),
        (
            "from = 'a', type = 'text', mask = 'redact', vault = true",
            "column \"x\": vault = true is for mask = \"hmac\" alone: only a token leads back to its value",
        ),
        (
            "from = 'a', type = 'text', mask = 'hmac', subject = true, vault = true",
            "column \"x\": vault = true needs a column with subject = true and required = true, so that it can be erased",
        ),
    ]);
}

#[test]
fn defaults_and_flags_that_do_not_go_with_the_rest() {
    assert_complaints(&[
        (
            "from = 'a', type = 'text', required = true, default = 'b'",
            "column \"x\": default is never used, since the column is required; remove one of the two",
        ),
        ("from = 'a', type = 'uuid', subject = true", "column \"x\": subject = true needs a text, not \"uuid\""),
        (
            "from = 'a', type = 'int', default = '7'",
            "column \"x\": default must be a whole number, as the column's values are",
        ),
        (
            "from = 'a', type = 'text', default = 7",
            "column \"x\": default must be a string, as the column's values are",
        ),
        (
            "from = 'a', type = 'numeric', default = true",
            "column \"x\": default must be a number, as the column's values are",
        ),
        (
            "from = 'a', type = 'boolean', default = 0",
            "column \"x\": default must be true or false, as the column's values are",
        ),
        ("from = 'a', type = 'real', default = inf", "column \"x\": default must be finite"),
        (
            "from = 'a', type = 'date', default = 2026-01-01",
            "column \"x\": default must be a string, a number, true or false, not a date or time without quotes",
        ),
        (
            "from = 'a', type = 'varchar(2)', default = 'abc'",
            "column \"x\": default has 3 characters, more than the column holds",
        ),
        (
            "from = 'a', type = 'int', default = 'sent_date'",
            "column \"x\": default = \"sent_date\" is for text, dates and timestamps, not for \"integer\"",
        ),
        (
            "from = 'a', type = 'date', default = 'sent_at'",
            "column \"x\": default = \"sent_at\" is for text and timestamps, not for \"date\"",
        ),
        ("from = 'a', type = 'text', required = 1", "column \"x\": required must be true or false, not an integer"),
        (
            "from = 'a', type = 'text', on_invalid = 'nul'",
            "column \"x\": on_invalid must be \"dead_letter\" or \"null\", not \"nul\"; did you mean \"null\"?",
        ),
    ]);
}

#[test]
fn mistakes_between_columns_and_in_their_names() {
    let text = format!(
        "[columns]\na = {{ from = 'a', type = 'text', subject = true }}\n\
         b = {{ from = 'b', type = 'text', subject = true }}\n\
         \"\" = {{ from = 'c', type = 'text' }}\n{} = {{ from = 'd', type = 'text' }}\ne = 'text'\nretention = '3d'\n\
         f = {{ from = '{}', type = 'text', mask = 'hmac' }}\n",
        "n".repeat(64),
        "p".repeat(256)
    );
    let expected = [
        "masq.toml:3: column \"b\": subject = true is already said of column \"a\"".to_owned(),
        "masq.toml:4: the name of column \"\" must not be empty".to_owned(),
        format!("masq.toml:5: the name of column \"{}\" has 64 bytes; PostgreSQL keeps 63 of a name", "n".repeat(64)),
        "masq.toml:6: column \"e\" must be a table, not a string, like { from = \"field\", type = \"text\" }"
            .to_owned(),
        "masq.toml:7: column \"retention\" must be a table, not a string; it belongs in [ledger]".to_owned(),
        "masq.toml:8: column \"f\": from has more than 255 bytes, too long for a token's domain; add domain".to_owned(),
    ];
    assert_eq!(complaints(&text), expected.join("\n"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file_and_then_those_outside_it() {
    let text = "[columns]\nx = { from = 'a', type = 'money' }\n[ledger]\nretention = 15\n[database]\nconections = 2\n";
    let overrides = Overrides {
        connections: said("many", "MASQ_CONNECTIONS"),
        listen: said("here", "--listen"),
        database_url: said("", "DATABASE_URL"),
        ..Overrides::default()
    };
    let sources = Sources { file: Some(("etc/masq.toml", text)), overrides };
    let complaints = Config::check(&sources).unwrap_err();
    assert_eq!(
        complaints.to_string(),
        "etc/masq.toml:2: column \"x\": type must be a type that masq writes, not \"money\"\n\
         etc/masq.toml:4: [ledger] retention must be a string, not an integer\n\
         etc/masq.toml:6: unknown key \"conections\" in [database]; did you mean \"connections\"?\n\
         DATABASE_URL: [database] url must not be empty\n\
         MASQ_CONNECTIONS: [database] connections must be a whole number from 1 to 64\n\
         --listen: [http] listen must be an IP address and a port, like \"127.0.0.1:9464\", or \"off\""
    );
    let first = serde_json::to_value(&complaints.into_vec()[0]).unwrap();
    assert_eq!((&first["source"], &first["line"]), (&"etc/masq.toml".into(), &2.into()));
}

#[test]
fn a_file_that_is_no_toml() {
    let complaints = complaints("[queue]\nurl = \"http://q\nvisibility = \"30s\"\n");
    assert!(complaints.starts_with("masq.toml:2:"), "{complaints}");
    assert!(complaints.contains(": this is not TOML: "), "{complaints}");
    assert!(!complaints.contains("http://q"), "{complaints}");
}
