//! What a value looks like, as far as its form names something of a person's. Pure.

use crate::vault::token::canonical_ip;

/// A form of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is what it is called
pub enum Pattern {
    Ip,
    Email,
    Url,
    Mac,
    Uuid,
    /// 000-00-0000, as US social security numbers and some device ids are written.
    NineDigits,
    Phone,
    /// A day, or a moment.
    Date,
}

impl Pattern {
    /// All, what is most particular first: a phone number may look like much.
    pub const ALL: [Self; 8] =
        [Self::Ip, Self::Email, Self::Url, Self::Mac, Self::Uuid, Self::NineDigits, Self::Date, Self::Phone];

    /// Whether a value has this form.
    pub fn fits(self, value: &str) -> bool {
        let value = value.trim();
        match self {
            Self::Ip => canonical_ip(value).is_some(),
            Self::Email => value.split_once('@').is_some_and(|(name, host)| {
                !name.is_empty() && host.contains('.') && !value.contains(char::is_whitespace) && !host.contains('@')
            }),
            Self::Url => ["http://", "https://", "ftp://"].iter().any(|scheme| value.starts_with(scheme)),
            Self::Mac => is_like(value, "xx:xx:xx:xx:xx:xx") || is_like(value, "xx-xx-xx-xx-xx-xx"),
            Self::Uuid => is_like(value, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"),
            Self::NineDigits => is_like(value, "ddd-dd-dddd"),
            Self::Date => {
                let day = value.get(..10).unwrap_or_default();
                is_like(day, "dddd-dd-dd")
                    || is_like(day, "dddd/dd/dd")
                    || is_like(day, "dd/dd/dddd")
                    || is_like(day, "dd.dd.dddd")
            }
            Self::Phone => {
                let digits = value.bytes().filter(u8::is_ascii_digit).count();
                let is_written_so = value.bytes().all(|byte| byte.is_ascii_digit() || b"+()- ".contains(&byte));
                // Without a plus or a separator it is any number.
                (7..=15).contains(&digits) && is_written_so && digits < value.len()
            }
        }
    }
}

/// `d` stands for a digit, `x` for a hexadecimal one, anything else for itself.
fn is_like(value: &str, form: &str) -> bool {
    value.len() == form.len()
        && value.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_hexdigit(),
            form => byte == form,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_form_that_fits() {
        for (value, expected) in [
            ("199.172.111.135", Some(Pattern::Ip)),
            ("2001:db8::1", Some(Pattern::Ip)),
            ("jane.roe@example.org", Some(Pattern::Email)),
            ("https://example.org/~jane", Some(Pattern::Url)),
            ("00:1b:44:11:3a:b7", Some(Pattern::Mac)),
            ("1f0c2a9e-0000-4000-8000-00000000000a", Some(Pattern::Uuid)),
            ("593-47-5928", Some(Pattern::NineDigits)),
            ("2023-05-06", Some(Pattern::Date)),
            ("2023-05-06 07:08:09+00", Some(Pattern::Date)),
            ("31.12.1999", Some(Pattern::Date)),
            ("+1 202-555-0123", Some(Pattern::Phone)),
            ("(202) 555-0123", Some(Pattern::Phone)),
            ("2025550123", None),
            ("2.3.0", None),
            ("android", None),
            ("DE", None),
            ("199.172.111.0/24", None),
            ("jane@home", None),
            ("", None),
            ("éééééééééé", None),
        ] {
            assert_eq!(Pattern::ALL.into_iter().find(|pattern| pattern.fits(value)), expected, "{value}");
        }
    }
}
