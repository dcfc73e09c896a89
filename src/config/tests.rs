//! What a configuration says, and which of its sources wins.

use super::*;

fn check(text: &str) -> Config {
    let sources = Sources { file: Some(("masq.toml", text)), ..Sources::default() };
    Config::check(&sources).unwrap_or_else(|complaints| panic!("{text}\n{complaints}"))
}

pub(super) fn said(value: &str, source: &str) -> Option<Override> {
    Some(Override { value: value.to_owned(), source: source.to_owned() })
}

#[test]
fn the_default_is_the_login_pipeline() {
    let config = check("");
    assert_eq!(config.table, TableName { schema: None, name: "user_logins".to_owned() });
    let columns: Vec<_> = config
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.from.text.as_str(), c.column_type.to_string(), c.meaning, c.mask.clone()))
        .collect();
    let hmac = |domain: &str| Some(Mask::Hmac { domain: domain.to_owned() });
    assert_eq!(
        columns,
        [
            ("user_id", "user_id", "varchar(128)".to_owned(), Meaning::Text, None),
            ("device_type", "device_type", "varchar(32)".to_owned(), Meaning::Text, None),
            ("masked_ip", "ip", "varchar(256)".to_owned(), Meaning::Ip, hmac("ip")),
            ("masked_device_id", "device_id", "varchar(256)".to_owned(), Meaning::Text, hmac("device_id")),
            ("locale", "locale", "varchar(32)".to_owned(), Meaning::Text, None),
            ("app_version", "app_version", "varchar(32)".to_owned(), Meaning::Version, None),
            ("create_date", "create_date", "date".to_owned(), Meaning::Date, None),
        ]
    );
    for (position, column) in config.columns.iter().enumerate() {
        assert_eq!((column.required, column.subject), (position == 0, position == 0), "{}", column.name);
        assert_eq!(column.default, (position == 6).then_some(Default::SentDate), "{}", column.name);
        assert_eq!(column.on_invalid, OnInvalid::DeadLetter);
    }
}

#[test]
fn every_setting_has_its_documented_default() {
    let config = check("");
    assert_eq!(config.unknown_fields, UnknownFields::Drop);
    assert!(!config.accept_reversible_masks);
    assert_eq!((config.queue.url, config.queue.endpoint, config.queue.visibility), (None, None, None));
    assert_eq!(config.queue.max_in_flight_bytes, 16 * 1024 * 1024);
    assert_eq!((config.queue.envelope, config.queue.dedupe), (Envelope::None, None));
    assert_eq!((config.database.url, config.database.password_file), (None, None));
    assert_eq!(config.database.connections, 4);
    assert_eq!(config.database.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.database.lock_timeout, Duration::from_secs(3));
    assert_eq!(config.database.statement_timeout, Duration::from_secs(30));
    assert_eq!(config.keys.dir, None);
    assert_eq!(config.ledger.retention, Duration::from_secs(15 * 24 * 60 * 60));
    assert_eq!(config.http.listen, Some(([127, 0, 0, 1], 9464).into()));
}

#[test]
fn everything_can_be_said() {
    let config = check(
        r#"
        unknown_fields = "reject"
        accept_reversible_masks = true
        queue.url = "https://sqs.eu-west-1.amazonaws.com/1/q"
        queue.endpoint = "http://[::1]:9324"
        queue.visibility = "2500ms"
        [database]
        url = "host=db user='masq'"
        password_file = "/run/secrets/password"
        connections = 64
        [http]
        listen = "off"
        [table]
        schema = "Events"
        name = 'strange "name"'
        [columns.zebra]
        from = "/a.b/0"
        type = "Character Varying(64)"
        mask = "hmac"
        domain = "animals"
        [columns.ant]
        from = "ant.legs"
        type = "int"
        default = 6
        on_invalid = "null"
        [columns]
        bee = { from = "bee", type = "bytea", mask = "sha256", vault = false }
        "#,
    );
    let names: Vec<_> = config.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["zebra", "ant", "bee"], "in the order written, and the default's are gone");
    assert_eq!(config.columns[0].mask, Some(Mask::Hmac { domain: "animals".to_owned() }));
    assert_eq!(config.columns[0].from.segments, ["a.b", "0"]);
    assert_eq!(config.columns[1].default, Some(Default::Literal(6.into())));
    assert_eq!(config.columns[1].on_invalid, OnInvalid::Null);
    assert_eq!(config.queue.visibility, Some(Duration::from_millis(2500)));
    assert_eq!(config.http.listen, None);
    assert_eq!(config.unknown_fields, UnknownFields::Reject);
    assert_eq!(config.table, TableName { schema: Some("Events".to_owned()), name: "strange \"name\"".to_owned() });
}

#[test]
fn a_flag_or_variable_beats_the_file_and_the_file_beats_the_default() {
    let text = "[queue]\nurl = \"http://file\"\n[database]\nconnections = 2\n\
                [http]\nlisten = \"off\"\n[keys]\ndir = \"file\"\n";
    let overrides = Overrides {
        queue_url: said("http://flag", "--queue-url"),
        connections: said("3", "--connections"),
        listen: said("127.0.0.1:1", "--listen"),
        visibility: said("4s", "--visibility"),
        ..Overrides::default()
    };
    let config = Config::check(&Sources { file: Some(("f", text)), overrides }).unwrap();
    assert_eq!(config.queue.url.as_deref(), Some("http://flag"));
    assert_eq!(config.queue.visibility, Some(Duration::from_secs(4)));
    assert_eq!(config.database.connections, 3);
    assert_eq!(config.http.listen, Some(([127, 0, 0, 1], 1).into()));
    assert_eq!(config.keys.dir, Some("file".into()));
    assert_eq!(config.ledger.retention, Duration::from_secs(15 * 24 * 60 * 60));
}

#[test]
fn a_password_is_in_no_debug_output() {
    let overrides =
        Overrides { database_url: said("postgres://masq:hunter2@db/x", "DATABASE_URL"), ..Overrides::default() };
    let sources = Sources { file: None, overrides };
    assert!(!format!("{:?}", Config::check(&sources).unwrap()).contains("hunter2"));
}

#[test]
fn a_template_is_the_default_with_the_users_own_addresses() {
    let (queue, database, keys) =
        ("http://localhost:9324/000000000000/q", "host=db password='a\"b\\c'", "/etc/masq/keys");
    let config = check(&template(Some(queue), Some(database), keys));
    assert_eq!(config.queue.url.as_deref(), Some(queue));
    assert_eq!(config.database.url.as_deref(), Some(database));
    assert_eq!(config.keys.dir, Some(keys.into()));

    let bare = check(&template(None, None, "k"));
    let default = check("");
    assert_eq!((bare.queue.url, bare.database.url), (None, None));
    assert_eq!(format!("{:?}", bare.columns), format!("{:?}", default.columns));
}

/// The reference and the table of settings name the same settings in the same order.
#[test]
fn default_toml_names_every_setting_and_no_other() {
    let mut section = "";
    let mut named = Vec::new();
    for line in template::DEFAULT.lines().take_while(|line| *line != "[columns]") {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && !key.contains(' ')
        {
            named.push((section, key));
        }
    }
    let settings: Vec<_> =
        settings::SECTIONS.iter().flat_map(|s| s.settings.iter().map(|setting| (s.name, setting.key))).collect();
    assert_eq!(named, settings);
    for setting in settings::COLUMN.iter().filter(|setting| setting.key != "vault") {
        let described = template::DEFAULT.lines().any(|line| line.starts_with(&format!("# {:<12}", setting.key)));
        assert!(described, "{}", setting.key);
    }
}

/// Every key and value of the default is one that the schema allows, and the schema repeats the defaults.
#[test]
fn the_schema_knows_the_default() {
    let schema = schema::schema();
    let top = &schema["properties"];
    let entries = raw::read("default.toml", template::DEFAULT).unwrap();
    let mut seen = 0;
    for entry in &entries {
        let property = &top[&entry.key];
        assert!(property["description"].is_string(), "{}", entry.key);
        let raw::Value::Table(keys) = &entry.value else { continue };
        for key in keys {
            if let raw::Value::Table(column) = &key.value {
                let properties = &property["additionalProperties"]["properties"];
                assert!(column.iter().all(|key| properties[&key.key].is_object()), "{}", key.key);
            } else {
                assert!(!property["properties"][&key.key]["default"].is_null(), "{}.{}", entry.key, key.key);
            }
            seen += 1;
        }
    }
    assert!(seen > 10);
    assert_eq!(top["queue"]["properties"]["max_in_flight_bytes"]["default"], "16MiB");
    assert_eq!(top["database"]["properties"]["connections"]["maximum"], 64);
    assert_eq!(top["unknown_fields"]["default"], "drop");
    assert_eq!(top["queue"]["additionalProperties"], false);
    assert_eq!(schema["additionalProperties"], false);
}

/// The words of the configuration, as documented, are those that are read.
#[test]
fn words_and_bounds_of_a_setting_are_read_as_they_are_shown() {
    assert_eq!(check("[queue]\nvisibility = \"12h\"").queue.visibility, Some(Duration::from_secs(43200)));
    assert_eq!(check("[queue]\nmax_in_flight_bytes = \"1048576B\"").queue.max_in_flight_bytes, 1 << 20);
    for (word, envelope) in [
        ("none", Envelope::None),
        ("sns", Envelope::Sns),
        ("eventbridge", Envelope::EventBridge),
        ("auto", Envelope::Auto),
    ] {
        assert_eq!(check(&format!("[queue]\nenvelope = '{word}'")).queue.envelope, envelope);
    }
    let dedupe = check("[queue]\ndedupe = 'attribute:event-id'").queue.dedupe;
    assert_eq!(dedupe, Some(Dedupe::Attribute("event-id".to_owned())));
    for meaning in Meaning::WORDS {
        let config = check(&format!("[columns]\nx = {{ from = 'x', type = 'text', as = '{meaning}' }}"));
        assert_eq!(config.columns[0].meaning.to_string(), meaning);
    }
    for (keys, mask) in [
        ("type = 'inet', mask = 'prefix'", Some(Mask::Prefix)),
        ("type = 'real', mask = 'redact'", Some(Mask::Redact)),
        ("type = 'char(64)', as = 'uuid', mask = 'hmac'", Some(Mask::Hmac { domain: "x".to_owned() })),
        ("type = 'varchar', mask = 'sha256'", Some(Mask::Sha256)),
    ] {
        let text = format!("accept_reversible_masks = true\n[columns]\nx = {{ from = 'x', {keys} }}");
        assert_eq!(check(&text).columns[0].mask, mask);
    }
}

/// Whatever a slip of the editor leaves of a file, it is read or complained of.
#[test]
fn a_file_cut_off_anywhere_is_never_a_panic() {
    for end in (0..template::DEFAULT.len()).step_by(13) {
        let text = &template::DEFAULT[..end];
        let sources = Sources { file: Some(("masq.toml", text)), ..Sources::default() };
        if let Err(complaints) = Config::check(&sources) {
            assert!(!complaints.is_empty(), "{text}");
        }
    }
}
