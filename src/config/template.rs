//! The built-in configuration, which is the login pipeline and the reference of all settings, and a copy of it with
//! the user's own addresses.

/// The lowest layer of every configuration.
pub const DEFAULT: &str = include_str!("default.toml");

/// The built-in configuration with these values in place of the examples. What is `None` stays a comment.
pub fn template(queue_url: Option<&str>, database_url: Option<&str>, keys_dir: &str) -> String {
    let values =
        [("[queue]", "url", queue_url), ("[database]", "url", database_url), ("[keys]", "dir", Some(keys_dir))];
    let mut text = String::with_capacity(DEFAULT.len());
    let mut section = "";
    for line in DEFAULT.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let written = values.iter().find_map(|(home, key, value)| {
            let example = line.strip_prefix("# ")?.strip_prefix(key)?.starts_with(" = ");
            value.filter(|_| *home == section && example).map(|value| format!("{key} = {}", quoted(value)))
        });
        text.push_str(written.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text
}

/// A basic string of TOML. JSON's escapes are among TOML's; only DEL stands for itself in JSON and may not in TOML.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string().replace('\u{7f}', "\\u007F")
}
