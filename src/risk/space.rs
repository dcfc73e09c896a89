//! What an outsider would try: all short values of a form, by number. Pure.
//!
//! A space is as large as what it is about: every IPv4 address, every nine-digit id. What a person chose (a name, an
//! e-mail address) is in none of them, though attackers have lists of those, too.

use std::ops::Range;

/// The longest candidate, in bytes. All are shorter than the 56 that one block of SHA-256 or SHA-1 has room for.
pub const LONGEST: usize = 16;

/// Values of one form, numbered.
#[derive(Clone, Debug)]
pub struct Space {
    /// What they are, in the plural.
    pub name: &'static str,
    /// Their numbers. All of them, unless somebody narrows it.
    pub range: Range<u64>,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Ipv4,
    /// Nine digits as 000-00-0000.
    Dashed,
    /// Nine digits.
    Nine,
    /// Without leading zeros.
    Number,
    /// Ten digits of the North American Numbering Plan, in which area and exchange begin with 2 to 9, after this.
    Phone(&'static str),
}

impl Space {
    /// All that is tried, the smallest first.
    pub fn all() -> Vec<Self> {
        let space = |name, range, form| Self { name, range, form };
        vec![
            space("numbers below 100,000,000", 0..100_000_000, Form::Number),
            space("ids of nine digits", 0..1_000_000_000, Form::Nine),
            space("ids like 000-00-0000", 0..1_000_000_000, Form::Dashed),
            space("IPv4 addresses", 0..1 << 32, Form::Ipv4),
            space("North American phone numbers", 0..PHONES, Form::Phone("")),
            space("North American phone numbers with +1", 0..PHONES, Form::Phone("+1")),
        ]
    }

    /// Those of its values with these numbers.
    #[must_use]
    pub fn within(self, range: Range<u64>) -> Self {
        Self { range, ..self }
    }

    /// How many there are.
    pub fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Writes the value of this number and answers its length.
    pub fn write(&self, number: u64, out: &mut [u8; LONGEST]) -> usize {
        match self.form {
            Form::Ipv4 => dotted(number, out),
            Form::Nine => digits(number, &mut out[..9]),
            Form::Dashed => {
                digits(number / 1_000_000, &mut out[..3]);
                out[3] = b'-';
                digits(number / 10_000 % 100, &mut out[4..6]);
                out[6] = b'-';
                digits(number % 10_000, &mut out[7..11]);
                11
            }
            Form::Number => {
                let len = usize::try_from(number.checked_ilog10().unwrap_or(0)).unwrap_or(0) + 1;
                digits(number, &mut out[..len])
            }
            Form::Phone(before) => {
                let at = before.len();
                out[..at].copy_from_slice(before.as_bytes());
                let (area, exchange) = (number / 8_000_000 + 200, number / 10_000 % 800 + 200);
                digits(area, &mut out[at..at + 3]);
                digits(exchange, &mut out[at + 3..at + 6]);
                digits(number % 10_000, &mut out[at + 6..at + 10]) + at + 6
            }
        }
    }
}

/// 800 area codes, 800 exchanges, 10,000 lines.
const PHONES: u64 = 800 * 800 * 10_000;

/// Fills `out` with the last digits of a number; answers how many.
fn digits(mut number: u64, out: &mut [u8]) -> usize {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.len()
}

fn dotted(number: u64, out: &mut [u8; LONGEST]) -> usize {
    let mut at = 0;
    for shift in [24, 16, 8, 0] {
        let octet = number >> shift & 0xff;
        let len = 1 + usize::from(octet > 9) + usize::from(octet > 99);
        at += digits(octet, &mut out[at..at + len]);
        out[at] = b'.';
        at += 1;
    }
    at - 1
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn written(space: &Space, number: u64) -> String {
        let mut out = [0; LONGEST];
        let len = space.write(number, &mut out);
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn the_first_and_the_last_of_each() {
        let ends =
            Space::all().iter().map(|space| [written(space, 0), written(space, space.size() - 1)]).collect::<Vec<_>>();
        let expected = [
            ["0", "99999999"],
            ["000000000", "999999999"],
            ["000-00-0000", "999-99-9999"],
            ["0.0.0.0", "255.255.255.255"],
            ["2002000000", "9999999999"],
            ["+12002000000", "+19999999999"],
        ];
        assert_eq!(ends, expected);
    }

    #[test]
    fn addresses_are_spelt_as_everybody_spells_them() {
        let space = &Space::all()[3];
        for bits in (0..u32::MAX).step_by(7_654_321) {
            assert_eq!(written(space, bits.into()), Ipv4Addr::from_bits(bits).to_string());
        }
        assert_eq!(written(&Space::all()[2], 593_475_928), "593-47-5928");
        assert_eq!(written(&Space::all()[4], 12_345_678), "2016345678");
    }
}
