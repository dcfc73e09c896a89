//! Sample logins: the same for the same seed, in the shape of the messages that masq first was made for.
//!
//! People come back, with the same devices and addresses, so that equal values occur. Every value is made up. Pure: no
//! clock, no randomness but the seed's.

use uuid::Builder;

/// How many people there are. More makes repetition rarer, so that a thousand logins show none; fewer makes every
/// login a repeated one.
const PEOPLE: u64 = 4096;

/// How many in a hundred people have told no country; so in the messages that these are modelled on.
const WITHOUT_LOCALE: u64 = 29;

/// ISO 3166-1 codes of the countries that people are from.
const LOCALES: [&str; 16] =
    ["AR", "AU", "BR", "CA", "CN", "CZ", "DE", "FR", "GB", "ID", "JP", "NO", "PL", "RU", "SE", "US"];

/// Which part of the messages is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// None of them.
    pub const NONE: Self = Self(0.0);

    /// So many in a hundred, from 0 to 100; anything else is `None`.
    pub fn percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent / 100.0))
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Its body.
    pub body: String,
    /// Whether it is wrong on purpose, so that the login pipeline makes it a dead letter.
    pub is_bad: bool,
}

/// Logins without end.
#[derive(Clone, Debug)]
pub struct Logins {
    seed: u64,
    random: Random,
    bad: Share,
}

impl Logins {
    /// Those of this seed.
    pub fn new(seed: u64, bad: Share) -> Self {
        Self { seed, random: Random(seed), bad }
    }
}

impl Iterator for Logins {
    type Item = Login;

    fn next(&mut self) -> Option<Login> {
        let is_bad = self.random.fraction() < self.bad.0;
        let person = Person::new(self.seed, self.random.below(PEOPLE));
        let fields = person.logs_in(&mut self.random);
        let body = if is_bad { fields.spoilt(&mut self.random) } else { fields.to_json() };
        Some(Login { body, is_bad })
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators"): any seed will do, and the
/// generators of neighbouring seeds have nothing in common. No secret may come from it.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to one less than `bound`. Not perfectly even, by less than one in 2^50 for the bounds used here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 0 to less than 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Somebody who logs in: made anew from seed and number each time, so that nobody needs to be kept.
struct Person {
    user_id: u128,
    locale: Option<&'static str>,
    traits: Random,
}

impl Person {
    fn new(seed: u64, number: u64) -> Self {
        let mut random = Random(Random(seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03)).next());
        let user_id = u128::from(random.next()) << 64 | u128::from(random.next());
        let country = LOCALES[random.below(LOCALES.len() as u64) as usize];
        let locale = (random.below(100) >= WITHOUT_LOCALE).then_some(country);
        Self { user_id, locale, traits: random }
    }

    /// With one of two devices, from one of two addresses; every device has had some version or other.
    fn logs_in(&self, random: &mut Random) -> Fields {
        let mut device = Random(self.traits.0 ^ random.below(2));
        let mut place = Random(self.traits.0 ^ (2 + random.below(2)));
        let device_type = ["android", "ios"][device.below(2) as usize];
        let device_id = device.below(1_000_000_000);
        // From 1 to 254: multicast and class E too, which are odd for a login, but addresses.
        let ip = [1 + place.below(254), place.below(256), place.below(256), 1 + place.below(254)];
        Fields { user_id: self.user_id, version: version(random), device_type, ip, locale: self.locale, device_id }
    }
}

/// Two or three parts, now and then with a leading or a lone zero: `2.3`, `0.96`, `6.02`, `2.00`, `2.3.0`.
fn version(random: &mut Random) -> String {
    let (major, minor) = (random.below(10), random.below(100));
    match random.below(4) {
        0 => format!("{major}.{}", minor % 10),
        1 => format!("{major}.{minor:02}"),
        _ => format!("{major}.{}.{}", minor % 10, random.below(10)),
    }
}

/// What a login says.
struct Fields {
    user_id: u128,
    version: String,
    device_type: &'static str,
    ip: [u64; 4],
    locale: Option<&'static str>,
    device_id: u64,
}

impl Fields {
    fn to_json(&self) -> String {
        let user_id = Builder::from_random_bytes(self.user_id.to_be_bytes()).into_uuid();
        let [a, b, c, d] = self.ip;
        let (quote, locale) = self.locale.map_or(("", "null"), |locale| ("\"", locale));
        let (version, device_type, id) = (&self.version, self.device_type, self.device_id);
        let (area, group, serial) = (id / 1_000_000, id / 10_000 % 100, id % 10_000);
        format!(
            "{{\"user_id\": \"{user_id}\", \"app_version\": \"{version}\", \"device_type\": \"{device_type}\", \
             \"ip\": \"{a}.{b}.{c}.{d}\", \"locale\": {quote}{locale}{quote}, \
             \"device_id\": \"{area:03}-{group:02}-{serial:04}\"}}"
        )
    }

    /// The same login, but wrong in one of the ways in which messages are.
    fn spoilt(&self, random: &mut Random) -> String {
        let mut body = self.to_json();
        match random.below(8) {
            0 => "{\"foo\": \"oops_wrong_msg_type\", \"bar\": \"123\"}".to_owned(),
            1 => body.replace("\"user_id\"", "\"userId\""),
            2 => body.replace("\"ip\": \"", "\"ip\": \"1."),
            3 => body.replace("\"app_version\": \"", "\"app_version\": \"v"),
            4 => body.replace(&format!("\"{}\"", self.device_type), "7"),
            5 => body.replace('"', "'"),
            6 => format!("[{body}]"),
            _ => {
                body.truncate(body.len() / 2);
                body
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap, HashSet};

    use serde_json::Value;

    use super::*;
    use crate::{
        config::{Config, Sources},
        pipeline::{decode::Decoder, value::Limits},
        queue::{Key, Message, Receipt},
    };

    fn logins(count: usize, percent: f64) -> Vec<Login> {
        Logins::new(7, Share::percent(percent).unwrap()).take(count).collect()
    }

    fn reason(login: &Login) -> Option<&'static str> {
        let columns = Config::check(&Sources::default()).unwrap().columns;
        let limits = columns.iter().map(|column| Limits::of(column.column_type, column.mask.as_ref())).collect();
        let decoder = Decoder::new(columns, limits, crate::config::UnknownFields::Drop);
        let key = Key { sent_at: 1, id: uuid::Uuid::nil() };
        let body = login.body.clone().into_bytes();
        let message = Message::new(key, 1, body, Receipt("".into()));
        decoder.read(&message).err().map(|reject| reject.reason.kind())
    }

    #[test]
    fn a_seed_says_which_logins_there_are() {
        assert_eq!(logins(50, 10.0), logins(50, 10.0));
        let other: Vec<_> = Logins::new(8, Share::NONE).take(50).collect();
        assert!(logins(50, 0.0).iter().zip(&other).all(|(a, b)| a.body != b.body));
    }

    #[test]
    fn exactly_those_that_are_wrong_on_purpose_become_dead_letters() {
        let mut kinds = BTreeSet::new();
        for login in logins(600, 30.0) {
            let reason = reason(&login);
            assert_eq!(reason.is_some(), login.is_bad, "{reason:?} {}", login.body);
            kinds.extend(reason);
        }
        assert_eq!(kinds.len(), 8, "{kinds:?}");
    }

    #[test]
    fn people_and_their_devices_come_back_and_shapes_vary() {
        let logins: Vec<Value> = logins(5000, 0.0).iter().map(|l| serde_json::from_str(&l.body).unwrap()).collect();
        let count = |key: &str| logins.iter().map(|login| login[key].to_string()).collect::<HashSet<_>>().len();
        assert!(count("user_id") < 3500 && count("device_id") < 4500 && count("ip") < 4500);
        assert!((2..=2).contains(&count("device_type")) && count("locale") == LOCALES.len() + 1);

        let mut devices: HashMap<String, HashSet<String>> = HashMap::new();
        for login in &logins {
            devices.entry(login["user_id"].to_string()).or_default().insert(login["device_id"].to_string());
        }
        assert!(devices.values().all(|of_one| of_one.len() <= 2));

        let nulls = logins.iter().filter(|login| login["locale"].is_null()).count();
        assert!((1250..1650).contains(&nulls), "{nulls}");
        let ips = || logins.iter().filter_map(|login| login["ip"].as_str()?.split('.').next()?.parse::<u8>().ok());
        assert!(ips().any(|first| (224..240).contains(&first)) && ips().any(|first| first >= 240));
        let versions = || logins.iter().filter_map(|login| login["app_version"].as_str());
        for odd in ["0.9", ".00", ".02"] {
            assert!(versions().any(|version| version.len() < 5 && version.contains(odd)), "{odd}");
        }
        assert!(versions().any(|version| version.len() == 3) && versions().any(|version| version.len() == 5));
    }

    #[test]
    fn a_share_is_a_share() {
        assert_eq!(logins(1000, 0.0).iter().filter(|login| login.is_bad).count(), 0);
        assert_eq!(logins(1000, 100.0).iter().filter(|login| login.is_bad).count(), 1000);
        let bad = logins(10_000, 5.0).iter().filter(|login| login.is_bad).count();
        assert!((420..580).contains(&bad), "{bad}");
        assert_eq!([-1.0, 100.1, f64::NAN].map(Share::percent), [None; 3]);
    }
}
