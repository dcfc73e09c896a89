//! Logins as they come from a crowd: people who come again, from a few addresses, with a device or two. For benchmarks,
//! whose records have to repeat as real ones do, and whose rows can be told in advance.
//!
//! Pure: the n-th record of a crowd is always the same. Every value is made up.

use std::net::Ipv4Addr;

/// Records of each person, on average: a million come from fifty thousand people. More makes nearly every value a
/// repeated one, fewer a new one.
const EACH: usize = 20;

/// Where addresses begin: 11.0.0.0.
const FIRST_ADDRESS: usize = 0x0b00_0000;

/// People who log in.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    people: usize,
}

/// One login: who, from where, with which device, each by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Record {
    pub person: usize,
    pub address: usize,
    pub device: usize,
}

impl Crowd {
    /// One in which people come as often in so many records as they do in any other number.
    pub fn of(records: usize) -> Self {
        Self { people: (records / EACH).max(1) }
    }

    /// The n-th record. Some people come often; each has three addresses, one of them shared by ten, and two devices.
    pub fn record(self, n: usize) -> Record {
        let random = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let random = usize::try_from(random).unwrap_or(0);
        let people = self.people;
        let person = random % people * (random / people % people) / people;
        let place = random % 7;
        let address = if place == 0 { person / 10 } else { people + person * 2 + place % 2 };
        Record { person, address, device: person * 2 + usize::from(random.is_multiple_of(5)) }
    }
}

impl Record {
    /// One of which no other has a value.
    pub fn unlike_any(n: usize) -> Self {
        Self { person: n, address: n, device: n }
    }

    /// The person's name.
    pub fn user_id(self) -> String {
        format!("user-{:032x}", self.person)
    }

    /// Where it comes from.
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::try_from(self.address + FIRST_ADDRESS).unwrap_or(0))
    }

    /// The name of the device.
    pub fn device_id(self) -> String {
        let device = self.device;
        format!("{:03}-{:02}-{:04}", device / 1_000_000 % 1000, device / 10_000 % 100, device % 10_000)
    }

    /// The message.
    pub fn body(self) -> String {
        let (user_id, ip, device_id) = (self.user_id(), self.ip(), self.device_id());
        format!(
            r#"{{"user_id": "{user_id}", "app_version": "2.3.0", "device_type": "android", "ip": "{ip}", "locale": "RU", "device_id": "{device_id}"}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// How many different values there are in a hundred records.
    fn different(records: usize, value: fn(Record) -> usize) -> usize {
        let crowd = Crowd::of(records);
        (0..records).map(|n| value(crowd.record(n))).collect::<HashSet<_>>().len() * 100 / records
    }

    #[test]
    fn people_come_as_often_in_any_number_of_records() {
        for records in [100_000, 400_000] {
            let found =
                [different(records, |r| r.person), different(records, |r| r.address), different(records, |r| r.device)];
            assert_eq!(found, [4, 9, 8], "{records}");
        }
    }
}
