//! Layers of settings, the later over the earlier: default, file, environment and flags.
//!
//! A value that is not what its setting may be is complained of and leaves the earlier one in its place, so that
//! everything after it can still be checked.

use std::collections::BTreeMap;

use super::{
    complaint::{Complaints, Place, suggestion},
    kind::Checked,
    raw::{Entry, Value},
    settings::{COLUMNS, SECTIONS, Section, Setting},
};

/// What the last layer that names a setting says; and the columns of the last layer that has any.
#[derive(Default)]
pub(super) struct Layers {
    sections: BTreeMap<&'static str, Values>,
    /// The columns as they were written, and where.
    pub(super) columns: Option<(Place, Vec<Entry>)>,
}

impl Layers {
    /// Lays a file over what is there.
    pub(super) fn lay(&mut self, entries: Vec<Entry>, complaints: &mut Complaints) {
        for entry in entries {
            if entry.key == COLUMNS {
                match entry.value {
                    Value::Table(columns) => self.columns = Some((entry.place, columns)),
                    other => complaints.add(&entry.place, not_a_section(&entry.key, &other)),
                }
            } else if let Some(section) = SECTIONS.iter().find(|section| section.name == entry.key) {
                self.lay_section(section, entry, complaints);
            } else {
                self.sections.entry("").or_default().set(SECTIONS[0].settings, &Scope::Top, &entry, complaints);
            }
        }
    }

    fn lay_section(&mut self, section: &Section, entry: Entry, complaints: &mut Complaints) {
        let Value::Table(entries) = entry.value else {
            return complaints.add(&entry.place, not_a_section(&entry.key, &entry.value));
        };
        let values = self.sections.entry(section.name).or_default();
        for entry in entries {
            values.set(section.settings, &Scope::Section(section.name), &entry, complaints);
        }
    }

    /// Lays one value from a flag or a variable over what is there. `setting` is its section and key.
    pub(super) fn lay_one(&mut self, setting: (&str, &str), text: &str, place: Place, complaints: &mut Complaints) {
        let Some(section) = SECTIONS.iter().find(|section| section.name == setting.0) else { return };
        let Some(setting) = section.settings.iter().find(|candidate| candidate.key == setting.1) else { return };
        let entry = Entry { key: setting.key.to_owned(), place, value: setting.kind.value(text) };
        let values = self.sections.entry(section.name).or_default();
        values.set(section.settings, &Scope::Section(section.name), &entry, complaints);
    }

    /// The values of a section; `""` is the top of the file.
    pub(super) fn section(&mut self, name: &str) -> Values {
        self.sections.remove(name).unwrap_or_default()
    }
}

fn not_a_section(key: &str, value: &Value) -> String {
    format!("\"{key}\" must be a section, [{key}], not {}", value.kind())
}

/// Whose keys are being read.
pub(super) enum Scope<'a> {
    Top,
    Section(&'static str),
    Column(&'a str),
}

impl Scope<'_> {
    /// One of its keys, as a complaint begins with it.
    pub(super) fn key(&self, key: &str) -> String {
        match self {
            Self::Top => key.to_owned(),
            Self::Section(name) => format!("[{name}] {key}"),
            Self::Column(name) => format!("column \"{name}\": {key}"),
        }
    }

    fn unknown(&self, key: &str, settings: &[Setting]) -> String {
        let known = settings.iter().map(|setting| setting.key);
        let (place, hint) = match self {
            Self::Top => {
                let sections = SECTIONS.iter().map(|section| section.name).chain([COLUMNS]);
                (String::new(), suggestion(key, known.chain(sections)))
            }
            Self::Section(name) => (format!(" in [{name}]"), suggestion(key, known)),
            Self::Column(name) => (format!(" in column \"{name}\""), suggestion(key, known)),
        };
        let hint = if hint.is_empty() { belongs(key) } else { hint };
        format!("unknown key \"{key}\"{place}{hint}")
    }
}

/// Where a key belongs that is a setting, but not here: TOML takes what follows a section's line as that section's.
pub(super) fn belongs(key: &str) -> String {
    let home = SECTIONS.iter().find(|section| section.settings.iter().any(|setting| setting.key == key));
    match home.map(|section| section.name) {
        Some("") => "; it belongs at the top of the file, above the first section".to_owned(),
        Some(section) => format!("; it belongs in [{section}]"),
        None => String::new(),
    }
}

/// The values of one section or column by key.
#[derive(Default)]
pub(super) struct Values(BTreeMap<&'static str, (Place, Option<Checked>)>);

impl Values {
    /// Takes a value in, or complains of it.
    pub(super) fn set(
        &mut self,
        settings: &'static [Setting],
        scope: &Scope<'_>,
        entry: &Entry,
        complaints: &mut Complaints,
    ) {
        let Some(setting) = settings.iter().find(|setting| setting.key == entry.key) else {
            return complaints.add(&entry.place, scope.unknown(&entry.key, settings));
        };
        match setting.kind.check(&entry.value) {
            Ok(value) => {
                self.0.insert(setting.key, (entry.place.clone(), Some(value)));
            }
            Err(error) => {
                self.0.entry(setting.key).or_insert_with(|| (entry.place.clone(), None));
                complaints.add(&entry.place, format!("{} {error}", scope.key(setting.key)));
            }
        }
    }

    /// Where it was written, also if what was written there is wrong.
    pub(super) fn place(&self, key: &str) -> Option<&Place> {
        self.0.get(key).map(|(place, _)| place)
    }

    /// The value, if one was written and is right.
    pub(super) fn get(&self, key: &str) -> Option<&Checked> {
        self.0.get(key).and_then(|(_, value)| value.as_ref())
    }

    /// The string.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        if let Some(Checked::Text(text)) = self.get(key) { Some(text) } else { None }
    }

    /// The number, milliseconds or bytes.
    pub(super) fn integer(&self, key: &str) -> Option<u64> {
        if let Some(Checked::Integer(number)) = self.get(key) { u64::try_from(*number).ok() } else { None }
    }

    /// The flag; false if there is none.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key) == Some(&Checked::Flag(true))
    }
}
