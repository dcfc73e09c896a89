//! The eighteen identifiers that must be gone before data are de-identified by HIPAA's Safe Harbor, 45 CFR
//! 164.514(b)(2)(i)(A) to (R): which of them a column is, by its name, its type and what its values look like. Pure.
//!
//! A guess, for a person to check: names say little, and what stands in free text nobody sees from outside.

use super::pattern::Pattern;

/// One of the eighteen: its letter in the regulation, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier {
    /// From A to R.
    pub letter: char,
    /// What it is.
    pub what: &'static str,
}

/// The letter, what it is, and words in a column's name that tell of it, those of one name joined by a blank. The first
/// line that fits decides, so what is particular stands before what is general.
const NAMED: [(char, &str, &str); 18] = [
    ('O', "IP addresses", "ip,ipv4,ipv6,remote addr,client addr"),
    ('F', "e-mail addresses", "email,e mail,mail"),
    ('M', "device identifiers", "device id,serial,imei,udid,idfa,gaid,android id,mac,device identifier,hardware id"),
    (
        'A',
        "names",
        "first name,last name,full name,given name,family name,surname,user name,username,nickname,person name",
    ),
    ('G', "social security numbers", "ssn,social security,tax id,national id"),
    ('H', "medical record numbers", "mrn,medical record,patient id"),
    ('I', "health plan numbers", "beneficiary,health plan,insurance,policy number"),
    ('K', "certificate and licence numbers", "passport,license,licence,certificate"),
    ('L', "vehicle identifiers", "vin,plate,vehicle,license plate"),
    ('E', "fax numbers", "fax"),
    ('D', "telephone numbers", "phone,telephone,mobile,msisdn,cell"),
    ('N', "web addresses", "url,uri,homepage,website,referer,referrer"),
    ('P', "biometric identifiers", "fingerprint,biometric,voiceprint,iris,face id"),
    ('Q', "photographs", "photo,image,picture,avatar"),
    ('C', "dates finer than a year", "birth,birthday,dob,date of birth,admission,discharge,death,age"),
    (
        'B',
        "places smaller than a state",
        "zip,postal,postcode,city,street,address,county,latitude,longitude,lat,lon,lng,geo",
    ),
    ('J', "account numbers", "account,iban,card number,credit card"),
    (
        'R',
        "other codes that are one person's",
        "user id,userid,uid,customer id,person id,member id,session id,cookie,guid,login",
    ),
];

/// Which identifier a column is, if one, and whether its values say so.
pub fn identifier(name: &str, is_date: bool, pattern: Option<Pattern>) -> Option<(Identifier, bool)> {
    let by_letter = |letter| NAMED.iter().find(|(other, ..)| *other == letter);
    let of = |(letter, what, _): &(char, &'static str, &str)| Identifier { letter: *letter, what };
    let letter = match pattern {
        Some(Pattern::Ip) => Some('O'),
        Some(Pattern::Email) => Some('F'),
        Some(Pattern::Url) => Some('N'),
        Some(Pattern::Mac) => Some('M'),
        Some(Pattern::Phone) => Some('D'),
        Some(Pattern::Date) => Some('C'),
        // What these are of, only the name tells.
        Some(Pattern::Uuid | Pattern::NineDigits) | None => is_date.then_some('C'),
    };
    if let Some(known) = letter.and_then(by_letter) {
        return Some((of(known), true));
    }
    let name = format!(" {} ", words(name));
    let named = NAMED.iter().find(|(.., hints)| hints.split(',').any(|hint| name.contains(&format!(" {hint} "))));
    match (named, pattern) {
        (Some(known), _) => Some((of(known), false)),
        (None, Some(Pattern::NineDigits)) => by_letter('G').map(|known| (of(known), true)),
        (None, Some(Pattern::Uuid)) => by_letter('R').map(|known| (of(known), true)),
        (None, _) => None,
    }
}

/// What the column is by which the configuration knows a person.
pub fn of_subject() -> Identifier {
    Identifier { letter: 'R', what: "other codes that are one person's" }
}

/// A name in lower-case words: `deviceId` and `device_id` are both `device id`.
fn words(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut was_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            words.push(' ');
        } else {
            if c.is_uppercase() && was_lower {
                words.push(' ');
            }
            words.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase() || c.is_numeric();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(name: &str, pattern: Option<Pattern>) -> Option<char> {
        identifier(name, false, pattern).map(|(identifier, _)| identifier.letter)
    }

    #[test]
    fn every_letter_is_there_once() {
        let mut letters: Vec<char> = NAMED.iter().map(|(letter, ..)| *letter).collect();
        letters.sort_unstable();
        assert!(letters.into_iter().eq('A'..='R'));
    }

    #[test]
    fn names_tell() {
        for (name, expected) in [
            ("ip", Some('O')),
            ("masked_ip", Some('O')),
            ("clientIp", Some('O')),
            ("device_id", Some('M')),
            ("deviceId", Some('M')),
            ("user_id", Some('R')),
            ("email_address", Some('F')),
            ("home_address", Some('B')),
            ("licensePlate", Some('K')),
            ("first_name", Some('A')),
            ("date_of_birth", Some('C')),
            ("device_type", None),
            ("locale", None),
            ("app_version", None),
            ("description", None),
            ("language", None),
            ("machine", None),
            ("updated", None),
        ] {
            assert_eq!(letter(name, None), expected, "{name}");
        }
    }

    #[test]
    fn values_and_types_tell_more_than_names() {
        assert_eq!(letter("notes", Some(Pattern::Email)), Some('F'));
        assert_eq!(letter("device_id", Some(Pattern::NineDigits)), Some('M'));
        assert_eq!(letter("code", Some(Pattern::NineDigits)), Some('G'));
        assert_eq!(letter("event", Some(Pattern::Uuid)), Some('R'));
        assert_eq!(
            identifier("create_date", true, None).map(|(found, by_values)| (found.letter, by_values)),
            Some(('C', true))
        );
        assert_eq!(letter("create_date", None), None, "a number may be a year");
    }
}
