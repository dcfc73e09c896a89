//! A configuration is one that workers can be made of, or complaints that each name a place; never a panic.

#![no_main]

use std::num::NonZeroU8;

use libfuzzer_sys::fuzz_target;
use masq::{
    check,
    config::{ColumnType, Config, Mask, Override, Overrides, Sources},
    db::{conninfo::Conninfo, migrations},
    start,
    vault::token::TokenRoot,
};

fuzz_target!(|said: (&str, &str)| {
    let (file, value) = said;
    let over = |source: &str| Some(Override { value: value.to_owned(), source: source.to_owned() });
    let overrides = Overrides {
        queue_url: over("--queue-url"),
        visibility: over("--visibility"),
        connections: over("--connections"),
        listen: over("--listen"),
        ..Overrides::default()
    };
    drop(Conninfo::parse(value, None, &|_| None));
    let alone = Config::check(&Sources { file: Some(("masq.toml", file)), overrides: Overrides::default() });
    let both = Config::check(&Sources { file: Some(("masq.toml", file)), overrides });
    if let Ok(config) = alone {
        fits_together(&config);
        // What was said beside a good file is what is wrong.
        for complaint in both.err().map(|complaints| complaints.into_vec()).unwrap_or_default() {
            assert!(complaint.place.source.starts_with("--"), "{complaint}");
        }
        return;
    }
    let complaints = alone.expect_err("it is no configuration").into_vec();
    assert!(!complaints.is_empty());
    for complaint in complaints {
        assert_eq!(complaint.place.source, "masq.toml");
        let line = complaint.place.line.expect("what is wrong in a file is so in a line of it");
        assert!((1..=file.split('\n').count()).contains(&line), "{line}");
        assert!(!complaint.message.is_empty() && !complaint.message.ends_with('.'), "{complaint}");
    }
    assert!(both.is_err(), "more was said, and less is wrong");
});

/// A configuration that is taken must not fail later.
fn fits_together(config: &Config) {
    let stored: Vec<ColumnType> = config.columns.iter().map(|column| column.column_type).collect();
    drop(start::decoder(config, &stored));
    drop(check::configuration(config));
    drop(migrations::create_table(&config.table, &config.columns));
    let root = TokenRoot::new(NonZeroU8::MIN, &[7; 32]);
    for column in &config.columns {
        if let Some(Mask::Hmac { domain }) = &column.mask {
            assert!(root.domain(domain).is_ok(), "a domain is too long for tokens");
        }
    }
}
