//! `[columns]`: one by one, and whether what each of them says goes together.

use super::{
    Column, ColumnType, Default, Mask, Meaning, OnInvalid, Path,
    complaint::{Complaints, Place},
    kind::{Checked, name},
    layers::{Scope, Values, belongs},
    raw::{Entry, Value},
    settings::COLUMN,
};

/// The longest domain, in bytes: a token's frame gives it one byte for the length.
const LONGEST_DOMAIN: usize = 255;

/// The columns that can be made of `written`, in its order.
pub(super) fn columns(
    (place, written): &(Place, Vec<Entry>),
    accept_reversible_masks: bool,
    complaints: &mut Complaints,
) -> Vec<Column> {
    if written.is_empty() {
        complaints.add(place, "[columns] must have at least one column".to_owned());
    }
    let mut columns = Vec::new();
    let mut subject: Option<&str> = None;
    for entry in written {
        let Some(mut draft) = Draft::read(entry, complaints) else { continue };
        if draft.values.flag("subject") {
            match subject {
                None => subject = Some(&entry.key),
                Some(first) => draft.complain("subject", &format!("= true is already said of column \"{first}\"")),
            }
        }
        columns.extend(draft.column(accept_reversible_masks));
    }
    check_vault(written, &columns, complaints);
    columns
}

/// What belongs to nobody could not be erased.
fn check_vault(written: &[Entry], columns: &[Column], complaints: &mut Complaints) {
    if columns.iter().any(|column| column.subject && column.required) {
        return;
    }
    for column in columns.iter().filter(|column| column.vault && matches!(column.mask, Some(Mask::Hmac { .. }))) {
        let place = written.iter().find(|entry| entry.key == column.name).map(|entry| &entry.place);
        let message = "= true needs a column with subject = true and required = true, so that it can be erased";
        complaints.add(
            place.expect("columns are made of these"),
            format!("{} {message}", Scope::Column(&column.name).key("vault")),
        );
    }
}

/// A column whose keys have been read, each by itself.
struct Draft<'a> {
    name: &'a str,
    place: &'a Place,
    values: Values,
    complaints: &'a mut Complaints,
}

impl<'a> Draft<'a> {
    fn read(entry: &'a Entry, complaints: &'a mut Complaints) -> Option<Self> {
        let key = &entry.key;
        let Value::Table(keys) = &entry.value else {
            let hint = match belongs(key) {
                hint if hint.is_empty() => ", like { from = \"field\", type = \"text\" }".to_owned(),
                hint => hint,
            };
            complaints.add(&entry.place, format!("column \"{key}\" must be a table, not {}{hint}", entry.value.kind()));
            return None;
        };
        if let Err(error) = name(key) {
            complaints.add(&entry.place, format!("the name of column \"{}\" {error}", key.escape_debug()));
        }
        let mut values = Values::default();
        for written in keys {
            values.set(COLUMN, &Scope::Column(key), written, complaints);
        }
        Some(Self { name: key, place: &entry.place, values, complaints })
    }

    fn complain(&mut self, key: &str, message: &str) {
        let place = self.values.place(key).unwrap_or(self.place);
        self.complaints.add(place, format!("{} {message}", Scope::Column(self.name).key(key)));
    }

    fn column(mut self, accept_reversible_masks: bool) -> Option<Column> {
        for (key, what) in [("from", "the field of the message"), ("type", "the type of the column")] {
            if self.values.place(key).is_none() {
                self.complain(key, &format!("is missing: {what}"));
            }
        }
        let from = self.from();
        let column_type = self.column_type();
        let meaning = self.meaning(column_type);
        let mask = self.mask(from.as_ref(), accept_reversible_masks);
        if let (Some(meaning), Some(column_type)) = (meaning, column_type) {
            self.check_stored(meaning, mask.as_ref(), column_type);
        }
        let default = self.default(meaning, column_type, mask.as_ref());
        self.check_flags(meaning);
        Some(Column {
            name: self.name.to_owned(),
            from: from?,
            column_type: column_type?,
            meaning: meaning?,
            mask,
            vault: self.values.flag("vault"),
            required: self.values.flag("required"),
            subject: self.values.flag("subject"),
            default,
            on_invalid: match self.values.text("on_invalid") {
                Some("null") => OnInvalid::Null,
                _ => OnInvalid::DeadLetter,
            },
        })
    }

    fn from(&self) -> Option<Path> {
        if let Some(Checked::Field(path)) = self.values.get("from") { Some(path.clone()) } else { None }
    }

    fn column_type(&self) -> Option<ColumnType> {
        if let Some(Checked::Type(column_type)) = self.values.get("type") { Some(*column_type) } else { None }
    }

    /// `None` only where the words that decide it are wrong, which has been complained of.
    fn meaning(&self, column_type: Option<ColumnType>) -> Option<Meaning> {
        match self.values.place("as") {
            Some(_) => self.values.text("as").and_then(Meaning::of_word),
            None => column_type.map(ColumnType::meaning),
        }
    }

    fn mask(&mut self, from: Option<&Path>, accept_reversible_masks: bool) -> Option<Mask> {
        let word = self.values.text("mask").map(str::to_owned);
        if word.as_deref() != Some("hmac") && self.values.place("domain").is_some() {
            self.complain("domain", "is for mask = \"hmac\" alone");
        }
        match word?.as_str() {
            "hmac" => Some(Mask::Hmac { domain: self.domain(from) }),
            "prefix" => Some(Mask::Prefix),
            "redact" => Some(Mask::Redact),
            _ => {
                if !accept_reversible_masks {
                    let remedy = "= \"sha256\" can be undone by trying: use \"hmac\", or write \
                                  accept_reversible_masks = true at the top of the file";
                    self.complain("mask", remedy);
                }
                Some(Mask::Sha256)
            }
        }
    }

    fn domain(&mut self, from: Option<&Path>) -> String {
        if let Some(domain) = self.values.text("domain").map(str::to_owned) {
            if domain.len() > LONGEST_DOMAIN {
                let message = format!("has {} bytes, more than {LONGEST_DOMAIN}", domain.len());
                self.complain("domain", &message);
            }
            return domain;
        }
        let domain = from.map_or_else(String::new, |from| from.text.clone());
        if domain.len() > LONGEST_DOMAIN {
            let message = format!("has more than {LONGEST_DOMAIN} bytes, too long for a token's domain; add domain");
            self.complain("from", &message);
        }
        domain
    }

    /// Whether what the mask leaves can be stored in the column, and whether the mask is made for the meaning.
    fn check_stored(&mut self, meaning: Meaning, mask: Option<&Mask>, column_type: ColumnType) {
        use Meaning as M;
        let said = self.values.text("as").is_some();
        match mask {
            Some(Mask::Redact) => {}
            Some(Mask::Prefix) => {
                if meaning != M::Ip {
                    self.complain("mask", &format!("= \"prefix\" is for as = \"ip\" alone, not \"{meaning}\""));
                } else if column_type != ColumnType::Inet && !fits_text(column_type, &Mask::Prefix) {
                    let longest = Mask::Prefix.longest();
                    let remedy = format!(
                        "{column_type} cannot hold any address's network; use text, varchar({longest}) or inet"
                    );
                    self.complain("type", &remedy);
                }
            }
            Some(mask @ (Mask::Hmac { .. } | Mask::Sha256)) => {
                if said && !matches!(meaning, M::Text | M::Ip | M::Uuid | M::Version) {
                    let message = format!("= \"{meaning}\" cannot become a token; only text, ip, uuid and version can");
                    self.complain("as", &message);
                }
                self.check_token_fits(mask, column_type);
            }
            None if meaning.fits(column_type) => {}
            None if said => self.complain("as", &format!("= \"{meaning}\" cannot be stored in {column_type}")),
            None => {
                let message = format!("{column_type} holds tokens alone; use text, or add mask = \"hmac\"");
                self.complain("type", &message);
            }
        }
    }

    fn check_token_fits(&mut self, mask: &Mask, column_type: ColumnType) {
        if column_type != ColumnType::Bytea && !fits_text(column_type, mask) {
            let longest = mask.longest();
            let remedy = format!(
                "{column_type} cannot hold a token of {longest} characters; use text, varchar({longest}) or bytea"
            );
            self.complain("type", &remedy);
        }
    }

    fn default(
        &mut self,
        meaning: Option<Meaning>,
        column_type: Option<ColumnType>,
        mask: Option<&Mask>,
    ) -> Option<Default> {
        let Some(Checked::Literal(literal)) = self.values.get("default").cloned() else { return None };
        let default = match literal.as_str() {
            Some("sent_date") => Default::SentDate,
            Some("sent_at") => Default::SentAt,
            _ => Default::Literal(literal),
        };
        if let Some(meaning) = meaning.filter(|meaning| !stands_for(&default, *meaning)) {
            let message = match &default {
                Default::SentDate => {
                    format!("= \"sent_date\" is for text, dates and timestamps, not for \"{meaning}\"")
                }
                Default::SentAt => format!("= \"sent_at\" is for text and timestamps, not for \"{meaning}\""),
                Default::Literal(_) => format!("must be {}, as the column's values are", literals(meaning)),
            };
            self.complain("default", &message);
        }
        if let (Default::Literal(literal), None, Some(length)) =
            (&default, mask, column_type.and_then(ColumnType::length))
        {
            let characters = literal.as_str().map_or(0, |text| text.chars().count());
            if characters > length as usize {
                self.complain("default", &format!("has {characters} characters, more than the column holds"));
            }
        }
        Some(default)
    }

    fn check_flags(&mut self, meaning: Option<Meaning>) {
        if self.values.flag("vault") && self.values.text("mask") != Some("hmac") {
            self.complain("vault", "= true is for mask = \"hmac\" alone: only a token leads back to its value");
        }
        if self.values.flag("required") && self.values.place("default").is_some() {
            self.complain("default", "is never used, since the column is required; remove one of the two");
        }
        if let Some(meaning) = meaning.filter(|meaning| *meaning != Meaning::Text)
            && self.values.flag("subject")
        {
            self.complain("subject", &format!("= true needs a text, not \"{meaning}\""));
        }
    }
}

/// Whether a column of this type holds as text whatever a mask leaves.
fn fits_text(column_type: ColumnType, mask: &Mask) -> bool {
    column_type.is_text() && column_type.length().is_none_or(|length| length >= mask.longest())
}

/// Whether a default can stand in for a value of that meaning.
fn stands_for(default: &Default, meaning: Meaning) -> bool {
    use Meaning as M;
    match default {
        Default::SentDate => matches!(meaning, M::Text | M::Date | M::Timestamp),
        Default::SentAt => matches!(meaning, M::Text | M::Timestamp),
        Default::Literal(literal) => match meaning {
            M::Text | M::Date | M::Timestamp | M::Uuid | M::Ip => literal.is_string(),
            M::Integer => literal.is_i64(),
            M::Number => literal.is_number(),
            M::Boolean => literal.is_boolean(),
            M::Version => literal.is_string() || literal.is_i64(),
            M::Json => true,
        },
    }
}

/// What literals stand for values of that meaning.
fn literals(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Integer => "a whole number",
        Meaning::Number => "a number",
        Meaning::Boolean => "true or false",
        Meaning::Version => "a string or a whole number",
        Meaning::Text | Meaning::Date | Meaning::Timestamp | Meaning::Uuid | Meaning::Ip | Meaning::Json => "a string",
    }
}
