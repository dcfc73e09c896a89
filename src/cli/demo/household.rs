//! Two persons of the sample who share an address: one is forgotten later, and the other must not lose anything by it.

use serde_json::Value;

use crate::local::logins::Login;

/// Who they are, as their logins say.
pub(super) struct Household {
    /// The address that both have.
    pub(super) ip: String,
    /// Who will be forgotten.
    pub(super) leaver: String,
    /// A device of theirs.
    pub(super) device: String,
    /// Who stays.
    pub(super) stayer: String,
}

impl Household {
    /// Has the second person among the good logins log in from where the first does. `None` if there are not two.
    pub(super) fn arrange(logins: &mut [Login]) -> Option<Self> {
        let mut good = logins.iter_mut().filter(|login| !login.is_bad);
        let first = good.next()?;
        let [leaver, device, ip] = ["user_id", "device_id", "ip"].map(|name| field(first, name));
        let second = good.find(|login| field(login, "user_id") != leaver)?;
        second.body = second.body.replace(&format!("\"{}\"", field(second, "ip")), &format!("\"{ip}\""));
        Some(Self { stayer: field(second, "user_id"), ip, leaver, device })
    }
}

/// A text in a good login.
fn field(login: &Login, name: &str) -> String {
    let body: Value = serde_json::from_str(&login.body).unwrap_or_default();
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::logins::{Logins, Share};

    #[test]
    fn two_persons_share_an_address_and_nothing_else_changes() {
        let sample: Vec<Login> = Logins::new(1, Share::percent(30.0).unwrap()).take(50).collect();
        let mut logins = sample.clone();
        let Household { ip, leaver, device, stayer } = Household::arrange(&mut logins).unwrap();
        assert_ne!(leaver, stayer);
        let changed: Vec<usize> = (0..sample.len()).filter(|&at| logins[at] != sample[at]).collect();
        let [second] = changed[..] else { panic!("{changed:?}") };
        let first = logins.iter().find(|login| !login.is_bad).unwrap();
        assert_eq!(["user_id", "device_id", "ip"].map(|name| field(first, name)), [leaver, device, ip.clone()]);
        assert_eq!(["user_id", "ip"].map(|name| field(&logins[second], name)), [stayer, ip]);
        for name in ["user_id", "device_id", "app_version"] {
            assert_eq!(field(&logins[second], name), field(&sample[second], name));
        }
    }

    #[test]
    fn one_person_is_no_household() {
        let one: Vec<Login> = Logins::new(1, Share::NONE).take(1).collect();
        assert!(Household::arrange(&mut [one.clone(), one].concat()).is_none());
    }
}
