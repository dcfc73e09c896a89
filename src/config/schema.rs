//! The JSON Schema of a configuration (draft 2020-12), for editors that complete and check TOML by one.
//!
//! It knows each value by itself; what must go together only [`super::Config::check`] knows.

use serde_json::{Map, Value as Json, json};

use super::{
    kind::Kind,
    raw::{self, Value},
    settings::{COLUMN, COLUMNS, SECTIONS, Setting},
    template::DEFAULT,
};

/// The schema, with a description of every setting and its default.
pub fn schema() -> Json {
    let defaults = raw::read("default.toml", DEFAULT).map_or_else(|_| json!({}), |top| to_json(&Value::Table(top)));
    let mut properties = Map::new();
    for section in SECTIONS {
        let settings = object(section.settings, &defaults[section.name]);
        if section.name.is_empty() {
            properties.extend(object(section.settings, &defaults));
        } else {
            let table = json!({
                "type": "object",
                "description": section.about,
                "additionalProperties": false,
                "properties": settings,
            });
            properties.insert(section.name.to_owned(), table);
        }
    }
    properties.insert(COLUMNS.to_owned(), columns());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "masq.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn columns() -> Json {
    json!({
        "type": "object",
        "description": "The columns of the table, in its order.",
        "minProperties": 1,
        "propertyNames": of_kind(Kind::Name),
        "additionalProperties": {
            "type": "object",
            "additionalProperties": false,
            "required": ["from", "type"],
            "properties": object(COLUMN, &Json::Null),
        },
    })
}

fn object(settings: &[Setting], defaults: &Json) -> Map<String, Json> {
    let property = |setting: &Setting| {
        let mut property = of_kind(setting.kind);
        property["description"] = setting.about.into();
        if let Some(default) = defaults.get(setting.key) {
            property["default"] = default.clone();
        }
        (setting.key.to_owned(), property)
    };
    settings.iter().map(property).collect()
}

/// What a kind says of a value, as far as a schema can say it. Lengths are in characters here, in bytes in PostgreSQL.
fn of_kind(kind: Kind) -> Json {
    match kind {
        Kind::Text | Kind::Type | Kind::Field => json!({ "type": "string", "minLength": 1 }),
        Kind::Dedupe => json!({ "type": "string", "pattern": "^(body|attribute):." }),
        Kind::Url => json!({ "type": "string", "pattern": "^https?://[^/\\s]" }),
        Kind::Name => json!({ "type": "string", "minLength": 1, "maxLength": 63 }),
        Kind::Listen => json!({ "type": "string", "pattern": "^(off|.+:[0-9]+)$" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": "^[0-9]+ *(d|h|m|s|ms)$" }),
        Kind::Size(..) => json!({ "type": "string", "pattern": "^[0-9]+ *(GiB|MiB|KiB|B)$" }),
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Literal => json!({ "type": ["string", "number", "boolean"] }),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Flag(flag) => (*flag).into(),
        Value::Table(entries) => entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.value))).collect(),
        Value::Other(_) => Json::Null,
    }
}
